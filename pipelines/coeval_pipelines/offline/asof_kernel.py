"""The as-of kernel: of every spine row, the latest visible event of its key, in numpy. Pure; it knows no engine.

An event enters its key's rows (sorted by q) at the first one that sees it, and the greatest in the total order so far
is the answer: exact however late it came, because no event is seen before it happened.
"""

from __future__ import annotations

import numpy as np

from coeval.aggregations.states import Ints
from coeval_pipelines.offline.kernel import Events, Grid, Spine


def latest_events(events: Events, known_at: Ints, spine: Spine, *, strict: bool, ttl: int = 0) -> Ints:
    """The place among the events of each spine row's latest one, in the spine's order; -1 where there is none.

    `known_at` is when each event could be known (microseconds UTC). `strict`: a row at q sees what was known before it,
    else also what was known at q itself. `ttl` in microseconds, 0: rows never expire.
    """
    latest = np.full(len(spine.q), -1, dtype=np.int64)
    if not len(events.key):
        return latest
    seen = np.maximum(events.event_ts, known_at) + int(strict)
    ranks = events.ranks()
    by_rank = np.empty_like(ranks)
    by_rank[ranks] = np.arange(len(ranks))
    rows, found = _latest(events.key, seen, ranks, Grid.of(spine))
    latest[rows] = by_rank[found]
    # Added, not subtracted: a spine's instant may be at the very end of int64.
    expired = (events.event_ts[latest] + ttl < spine.q) & bool(ttl)
    return np.where(expired, -1, latest)


def _latest(key: Ints, seen: Ints, ranks: Ints, grid: Grid) -> tuple[Ints, Ints]:
    """The spine rows that see an event of their key, and the greatest rank that each sees."""
    owners = grid.cells // (len(grid.instants) + 1)
    enters = grid.first_row(key, seen)
    mine = np.append(owners, -1)[enters] == key
    # Keys ascend along the grid, so a running maximum of (key, rank) begins anew with each of them.
    none = owners * (len(ranks) + 1)
    best = none.copy()
    np.maximum.at(best, enters[mine], key[mine] * (len(ranks) + 1) + ranks[mine] + 1)
    found = np.maximum.accumulate(best) - none
    return grid.order[found > 0], found[found > 0] - 1
