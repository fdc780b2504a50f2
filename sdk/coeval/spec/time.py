"""Instants, hops and tiles. Pure: an instant is an int64 of microseconds since the epoch, UTC."""

from __future__ import annotations

import re

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

MAX_TILES = 288
"""The most tiles that one window may span: bounds what a read merges."""

_UNITS = {"d": DAY, "h": HOUR, "m": MINUTE, "s": SECOND}


def floor_to(instant: int, hop: int) -> int:
    """The greatest multiple of `hop` that is not after `instant`, counted from the epoch; also before it."""
    return instant - instant % hop


def ceil_to(instant: int, hop: int) -> int:
    """The least multiple of `hop` that is not before `instant`."""
    return -floor_to(-instant, hop)


def tile_index(instant: int, hop: int) -> int:
    """The index k of the tile [k*hop, (k+1)*hop) that holds `instant`; negative before the epoch."""
    return instant // hop


def hop_of(window: int, slide: int | None = None) -> int:
    """The hop of a window: the declared slide where it is smaller than the window, else by the window's length.

    Raises:
        ValueError: the window cannot be cut into tiles under the rules.
    """
    hop = slide if slide and slide < window else _default_hop(window)
    if window % hop:
        raise ValueError(f"a window of {duration(window)} is not a multiple of its hop {duration(hop)}")
    if hop < SECOND:
        raise ValueError(f"a hop of {duration(hop)} is below a second")
    if DAY % hop and hop % DAY:
        raise ValueError(f"a hop of {duration(hop)} neither divides a day nor is whole days")
    if window // hop > MAX_TILES:
        raise ValueError(
            f"a window of {duration(window)} would need {window // hop} tiles of {duration(hop)}; "
            f"{MAX_TILES} is the most: declare a larger slide_interval"
        )
    return hop


def _default_hop(window: int) -> int:
    if window >= 12 * DAY:
        return DAY
    return HOUR if window >= 12 * HOUR else 5 * MINUTE


def duration(length: int) -> str:
    """A length of time as its users write it: 30d, 24h, 5m, 90s. `24h` rather than `1d`, as windows are named."""
    if length == DAY:
        return "24h"
    for unit, size in _UNITS.items():
        if length and length % size == 0:
            return f"{length // size}{unit}"
    return f"{length}us"


def parse_duration(text: str) -> int:
    """Microseconds of `90s`, `5m`, `24h`, `30d`.

    Raises:
        ValueError: not such a text.
    """
    match = re.fullmatch(r"(\d+)([dhms])", text)
    if not match:
        raise ValueError(f"{text!r} is not a duration; write 90s, 5m, 24h or 30d")
    return int(match[1]) * _UNITS[match[2]]
