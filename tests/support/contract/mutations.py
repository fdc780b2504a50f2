"""Every rule of the contract broken on purpose, in each engine's own words: the suite must see each of them.

A mutation replaces a text in an engine's source, in the store's script, or in the SQL that an engine is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LUA = "coeval.online.writer"
"""Of a change to the store's script."""
FLINK = "statements"
"""Of a change to the SQL of the stream's job."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """A rule, the engine that breaks it, and how: in `module`, each `old` becomes `new`.

    `views` are those whose cases can tell; `cheap` ones run with every test run.
    """

    rule: str
    engine: str
    module: str
    old: str
    new: str
    views: tuple[str, ...]
    cheap: bool = False


_MERGE, _STORED, _KERNEL = "coeval.online.merge", "coeval.online.rows", "coeval_pipelines.offline.kernel"
_KEYS, _OPS, _STATES = "coeval.spec.keys", "coeval.aggregations.ops", "coeval.aggregations.states"
_PARTIAL = "coeval.aggregations.partial"
_ASOF, _WINDOWS, _TILES = (f"coeval_pipelines.offline.{name}" for name in ("asof", "windows", "tiles"))
_SMALL, _ASOF_KERNEL, _EVALUATED, _ARROW_EVENTS, _ARROW_SPINE = (
    f"coeval_pipelines.offline.{name}" for name in ("small", "asof_kernel", "evaluated", "arrow_events", "arrow_spine")
)
_COLUMNS, _INTERVALS = "coeval_pipelines.offline.columns", "coeval_pipelines.offline.intervals"
_TYPED = ("of_whole", "of_money", "of_fee", "of_huge")
_SEEN = "coeval_pipelines.offline.seen"
_CHOSEN = ("chosen_windows", "chosen_rows")
_ERASED = "coeval_pipelines.offline.erased"
_ROWS = ("latest", "recent", "pair_latest", "fact")
_WINDOWS_OF_ALL = ("spans", "slides", "of_whole")


def _online(rule: str, module: str, old: str, new: str, *views: str) -> Mutation:
    return Mutation(rule, "online", module, old, new, views, cheap=True)


def _kernel(rule: str, module: str, old: str, new: str, *views: str) -> Mutation:
    return Mutation(rule, "kernel", module, old, new, views, cheap=True)


def _small(rule: str, module: str, old: str, new: str, *views: str) -> Mutation:
    return Mutation(rule, "small", module, old, new, views, cheap=True)


def _spark(rule: str, module: str, old: str, new: str, *views: str, cheap: bool = False) -> Mutation:
    return Mutation(rule, "spark", module, old, new, views, cheap)


def _load(rule: str, module: str, old: str, new: str, *views: str, cheap: bool = False) -> Mutation:
    return Mutation(rule, "spark-load", module, old, new, views, cheap)


def _flink(rule: str, old: str, new: str, *views: str, cheap: bool = False) -> Mutation:
    return Mutation(rule, "flink", FLINK, old, new, views, cheap)


ONLINE = (
    _online(
        "open tile dropped",
        _MERGE,
        "newest = (q - 1) //",
        "newest = (q - 1 - aggregate.hop) //",
        *_WINDOWS_OF_ALL,
    ),
    _online("ttl ignored", _STORED, "elif codec.ttl and", "elif False and", "recent", "pair_latest", "fresh_fact"),
    _online("ttl boundary (< to <=)", _STORED, "event_ts < oldest", "event_ts <= oldest", "recent", "fresh_fact"),
    _online(
        "hop floor off",
        _MERGE,
        "floor_to(q - aggregate.window, aggregate.hop) //",
        "(q - aggregate.window + aggregate.hop - 1) //",
        *_WINDOWS_OF_ALL,
    ),
    _online("window start (>= to >)", _MERGE, "(index >= oldest)", "(index > oldest)", *_WINDOWS_OF_ALL),
    _online("old tiles not masked", _MERGE, "(index >= oldest) & ", "", *_WINDOWS_OF_ALL),
    _online(
        "null counted",
        _MERGE,
        "mask & (ring[counted] > 0)",
        "mask",
        "of_whole",
        "of_money",
    ),
    _online("min for max", _STATES, "np.maximum if greatest else np.minimum", "np.minimum", *_TYPED),
    _online(
        "first for last",
        _STATES,
        "if latest else ranked.argmin(axis=1)",
        "if not latest else ranked.argmin(axis=1)",
        *_TYPED,
    ),
    _online(
        "float for decimal",
        _STATES,
        "return from_limbs(low, high)",
        "return from_limbs(low, high).astype(np.float64).astype(np.int64)",
        "of_whole",
        "of_fee",
    ),
    _online(
        "overflow wrapped",
        _STATES,
        "for v, h in zip(low, high, strict=True)], dtype=object)",
        "for v, h in zip(low, high, strict=True)], dtype=object) if False else narrow",
        "of_whole",
    ),
    _online("overflow not seen", _PARTIAL, "not low <= value <= high", "False", "of_whole", "of_huge"),
    _online(
        "key escaping dropped",
        _KEYS,
        '.replace("%", "%25").replace("|", "%7C")',
        "",
        "by_pair",
        "pair_latest",
        "by_text",
    ),
    _online("key escape not escaped", _KEYS, '.replace("%", "%25").replace("|"', '.replace("|"', "by_pair", "by_text"),
    _online(
        "tie order reversed",
        LUA,
        "if given[at] <= stored[at]",
        "if at > 2 and given[at] >= stored[at] or at <= 2 and given[at] <= stored[at]",
        "latest",
        "fact",
    ),
    _online("ties by arrival", LUA, "while at < 7", "while at < 2", "latest", "fact"),
    _online(
        "order as doubles",
        LUA,
        "local stored, given = {e0, f0, a0, b0, p0, o0, q0}, {e1, f1, a1, b1, p1, o1, q1}",
        "local function d(e, f) return e * 4294967296 + f end\n"
        "local stored, given = {d(e0, f0), 0, a0, b0, p0, o0, q0}, {d(e1, f1), 0, a1, b1, p1, o1, q1}",
        "latest",
    ),
    _online("epoch guard ignored", LUA, "p0 > p1 or (p0 == p1 and n0 >= n1)", "n0 >= n1", *_WINDOWS_OF_ALL),
    _online("last writer wins", LUA, "p0 > p1 or (p0 == p1 and n0 >= n1)", "false", *_WINDOWS_OF_ALL),
    _online("an older tile evicts", LUA, "if t0 > t1 or ", "if ", "spans", "slides"),
    _online(
        "floor ignored by the guard",
        LUA,
        "at_most(start, floor) and is_erased(",
        "false and is_erased(",
        *_WINDOWS_OF_ALL,
    ),
    _online("floor of rows ignored by the guard", LUA, "if #found > 0 then", "if false then", *_ROWS),
    _online(
        "rows of an erased time kept", LUA, "if is_erased(found, string.sub(payload, 9, 16), p)", "if false", "latest"
    ),
    _online("floor of a key to come forgotten", LUA, "= furthest(floors_of(key))", "= NO_FLOOR, 0", *_WINDOWS_OF_ALL),
    _online("floor (<= to <)", LUA, "b <= d", "b < d", *_ROWS, *_WINDOWS_OF_ALL),
    _online("tiles anew from batch refused", LUA, "if p <= struct.unpack('>I4', known, 9) and", "if", *_WINDOWS_OF_ALL),
    _online(
        "tiles of an unaware batch kept",
        LUA,
        "if p <= struct.unpack('>I4', known, 9) and",
        "if p == 0 and",
        *_WINDOWS_OF_ALL,
    ),
    _online("floor ignored by the reader", _MERGE, "if not self._nothing_erased:", "if False:", *_WINDOWS_OF_ALL),
    _online("floor of rows ignored by the reader", _STORED, "if available_at <= floor", "if False", *_ROWS),
    _online("floor (<= to <) in the reader", _STORED, "if available_at <= floor", "if available_at < floor", *_ROWS),
    _online("tiles at the floor seen", _MERGE, "index <= (tiles", "index < (tiles", *_WINDOWS_OF_ALL),
)
KERNEL = (
    _kernel("visibility (< to <=)", _KERNEL, "events.available_at + 1", "events.available_at", *_WINDOWS_OF_ALL),
    _kernel("availability filter dropped", _KERNEL, "events.available_at + 1", "events.event_ts + 1", *_WINDOWS_OF_ALL),
    _kernel(
        "hop floor off",
        _KERNEL,
        "event_ts - event_ts % hop + hop + aggregate.window",
        "event_ts + hop + aggregate.window",
        *_WINDOWS_OF_ALL,
    ),
    _kernel(
        "window exact, not sawtooth",
        _KERNEL,
        "event_ts - event_ts % hop + hop + aggregate.window",
        "event_ts + aggregate.window + 1",
        *_WINDOWS_OF_ALL,
    ),
    _kernel(
        "null counted",
        _KERNEL,
        "ranges = self.ranges(aggregate).of(column.valid)",
        "ranges = self.ranges(aggregate)"
        " if isinstance(component.op, Counted) else self.ranges(aggregate).of(column.valid)",
        "of_money",
        "of_whole",
    ),
    _kernel("min for max", _KERNEL, "np.maximum if greatest else np.minimum", "np.minimum", "of_money", "of_whole"),
    _kernel(
        "tie order reversed",
        _KERNEL,
        "(offset, partition, self.available_at, self.event_ts)",
        "(-offset, -partition, -self.available_at, self.event_ts)",
        "of_whole",
        "of_fee",
    ),
    _kernel(
        "ties by position alone",
        _KERNEL,
        "(offset, partition, self.available_at, self.event_ts)",
        "(self.event_ts, self.available_at, partition, offset)",
        "of_whole",
        "of_fee",
    ),
    _kernel(
        "float for decimal",
        _INTERVALS,
        "if values.dtype == object:\n        return _sum_objects",
        "values = values if values.dtype == object else values.astype(np.float64).astype(np.int64)\n"
        "    if values.dtype == object:\n        return _sum_objects",
        "of_whole",
        "of_fee",
    ),
    _kernel(
        "overflow wrapped",
        _INTERVALS,
        "< _SAFE_SUM:\n        return covering(ranges, values)",
        "< 2.0**300:\n        return covering(ranges, values)",
        "of_whole",
        "of_fee",
    ),
)
SMALL = (
    _small("visibility (< to <=)", _ASOF_KERNEL, "+ int(strict)", "+ 0", "latest", "recent", "pair_latest"),
    _small("batch visibility (<= to <)", _ASOF_KERNEL, "+ int(strict)", "+ 1", "fact", "fresh_fact"),
    _small(
        "availability filter dropped",
        _ASOF_KERNEL,
        "np.maximum(events.event_ts, known_at)",
        "events.event_ts",
        "latest",
        "fact",
    ),
    _small("seen before it happened", _ASOF_KERNEL, "np.maximum(events.event_ts, known_at)", "known_at", "fact"),
    _small("ttl ignored", _ASOF_KERNEL, "& bool(ttl)", "& False", "recent", "fresh_fact"),
    _small("ttl boundary (< to <=)", _ASOF_KERNEL, "+ ttl < spine.q", "+ ttl <= spine.q", "recent", "fresh_fact"),
    _small("ties by offset alone", _KERNEL, "np.lexsort((offset, partition, ", "np.lexsort((offset, ", "latest"),
    _small(
        "windows: availability filter dropped",
        _SMALL,
        'facts.available_at if knowledge == "available" else facts.event_ts',
        "facts.event_ts",
        "spans",
    ),
    _small(
        "events before the window cut off", _SMALL, "spine.earliest - view.reach", "spine.latest - view.reach", "spans"
    ),
    _small("parts of keys mixed up", _ARROW_SPINE, "values + there", "values + there * 0", "by_pair", "pair_latest"),
    _small("erasures dropped", _ARROW_EVENTS, "facts.where(~erased)", "facts", *_ROWS, "spans"),
    _small("erasure (<= to <)", _ARROW_EVENTS, "facts.available_at <= until", "facts.available_at < until", *_ROWS),
    _small("condition dropped", _EVALUATED, "if view.where:", "if view.where and False:", *_CHOSEN),
    _small("a condition of null holds", _EVALUATED, "[value == 1 for", "[value != 0 for", *_CHOSEN),
)
SPARK = (
    _spark("erasures dropped", _ERASED, 'marked.where(f"NOT {ERASED}")', "marked", *_ROWS, "spans", cheap=True),
    _spark("erasure (<= to <)", _ERASED, "available_at <= ", "available_at < ", *_ROWS, "spans", cheap=True),
    _spark("condition dropped", _SEEN, "if view.where:", "if view.where and False:", *_CHOSEN),
    _spark("visibility (< to <=)", _ASOF, "{_STREAM if", "{_BATCH if", "latest", "recent", cheap=True),
    _spark("batch visibility (<= to <)", _ASOF, "else _BATCH}", "else _STREAM}", "fact", "fresh_fact"),
    _spark(
        "availability filter dropped",
        _ASOF,
        '"GREATEST(event_ts, available_at)" if knowledge == "available" else "event_ts"',
        '"event_ts"',
        "latest",
        "fact",
        cheap=True,
    ),
    _spark(
        "windows: availability filter dropped",
        _WINDOWS,
        '"available_at" if knowledge == "available" else "event_ts"',
        '"event_ts"',
        "spans",
        cheap=True,
    ),
    _spark("ttl ignored", _ASOF, 'if view.ttl else "TRUE"', 'if False else "TRUE"', "recent", "fresh_fact"),
    _spark("ttl boundary (>= to >)", _ASOF, "{latest}.o0 >= __at", "{latest}.o0 > __at", "recent", "fresh_fact"),
    _spark(
        "tie order reversed",
        _ASOF,
        "enumerate(ORDER)",
        "enumerate(('event_ts', 'offset', 'partition', 'available_at'))",
        "latest",
        "fact",
    ),
    _spark("min for max", _ASOF, "F.max(name)", "F.min(name)", "latest"),
    _spark(
        "ties in windows by offset alone",
        _WINDOWS,
        '"CAST(partition AS BIGINT) AS partition"',
        '"0L AS partition"',
        "of_whole",
        "of_fee",
    ),
    _spark(
        "events before the window cut off",
        _WINDOWS,
        "event_ts >= {spine.earliest - reach}",
        "event_ts >= {spine.latest - reach}",
        "spans",
    ),
    _spark("null counted", _WINDOWS, "IF({column} IS NULL, NULL, 1L)", "1L", "by_pair", "spans"),
    _spark(
        "float for decimal",
        _COLUMNS,
        "CAST({column} * {10**field.type.scale}BD AS BIGINT)",
        "GREATEST(LEAST("
        "CAST(CAST(CAST({column} AS DOUBLE) AS DECIMAL(30,6)) * {10**field.type.scale}BD AS BIGINT), "
        "999999999999999999L), -999999999999999999L)",
        "of_fee",
    ),
    _spark(
        "key escaping dropped",
        _KEYS,
        "REPLACE(REPLACE({column}, '%', '%25'), '|', '%7C')",
        "{column}",
        "by_pair",
        cheap=True,
    ),
)
LOAD = (
    _load("erasures dropped", _ERASED, 'marked.where(f"NOT {ERASED}")', "marked", *_WINDOWS_OF_ALL),
    _load("condition dropped", _SEEN, "if view.where:", "if view.where and False:", *_CHOSEN),
    _load("cut (< to <=)", _TILES, "available_at < {cut}", "available_at <= {cut}", "spans", "of_whole", "slides"),
    _load("availability at the cut dropped", _TILES, " AND available_at < {cut}", "", "spans", "of_whole", "slides"),
    _load(
        "tiles that are not final loaded",
        _TILES,
        "event_ts < {last * hop}",
        "event_ts < {(last + 10**6) * hop}",
        "spans",
        "of_whole",
    ),
    _load("tile floor off", _TILES, "PMOD(event_ts, {hop}L)", "0L", "spans", "slides"),
    _load(
        "tie order reversed",
        _TILES,
        "f\"MAX(STRUCT({', '.join(map(quoted, ORDER))}",
        "f\"MIN(STRUCT({', '.join(map(quoted, ORDER))}",
        "fact",
        cheap=True,
    ),
    _load(
        "row visibility (<= to <)",
        _TILES,
        '"GREATEST(event_ts, available_at) <= "',
        '"GREATEST(event_ts, available_at) < "',
        "fact",
        "fresh_fact",
    ),
    _load(
        "row availability filter dropped",
        _TILES,
        '"GREATEST(event_ts, available_at) <= "',
        '"event_ts <= "',
        "fact",
        "fresh_fact",
    ),
    _load(
        "row visibility of streams (< to <=)",
        _TILES,
        '"available_at < " if view.stream',
        '"available_at <= " if view.stream',
        "latest",
        "recent",
    ),
    _load("min for max", _OPS, "'MAX' if self.greatest else 'MIN'", "'MIN'", "of_money", "spans"),
    _load("first for last", _OPS, "'MAX' if self.latest else 'MIN'", "'MIN'", "of_money", "of_whole"),
    _load("null counted", _OPS, 'f"COUNT({column})"', '"COUNT(*)"', "spans", "by_pair"),
    _load(
        "float for decimal",
        _OPS,
        'lifted = self.lift_sql(f"CAST({column} AS {storage.value})" if storage is Storage.WIDE else column)',
        'lifted = self.lift_sql(f"CAST({column} AS DOUBLE)")',
        "of_fee",
        "of_whole",
    ),
    _load("key escaping dropped", _KEYS, "REPLACE(REPLACE({column}, '%', '%25'), '|', '%7C')", "{column}", "by_pair"),
)
STREAM = (
    _flink("null in a condition counts as true", "IS TRUE", "IS NOT FALSE", "chosen_windows"),
    _flink(
        "late filter dropped",
        "WHERE available_at < (tile + 1)",
        "WHERE TRUE OR available_at < (tile + 1)",
        "spans",
        cheap=True,
    ),
    _flink("late (< to <=)", "WHERE available_at < (tile + 1)", "WHERE available_at <= (tile + 1)", "spans"),
    _flink("duplicates kept", "WHERE is_first", "WHERE TRUE", "spans", cheap=True),
    _flink(
        "clock ahead not brought back",
        "declared_ts,\n    event_ts,",
        "declared_ts,\n    declared_ts AS event_ts,",
        "latest",
        "spans",
    ),
    _flink("events of the future kept", '"max_future_skew": ', '"max_future_skew": 1000000', "latest"),
    _flink("tile floor off", "MOD(MOD(event_ts, ", "MOD((event_ts * 0 + ", "spans"),
    _flink("null counted", "COUNT(`f:whole`)", "COUNT(*)", "spans"),
    _flink("min for max", "MAX(`f:money`)", "MIN(`f:money`)", "spans"),
    _flink(
        "tie order reversed",
        "CAST(CAST(log_partition AS BIGINT) + 1 AS STRING)",
        "CAST(9 - CAST(log_partition AS BIGINT) AS STRING)",
        "of_whole",
    ),
    _flink(
        "float for decimal",
        "CAST(SUM(CAST(`f:whole` AS DECIMAL(38, 0))) AS DECIMAL(38, 0))",
        "CAST(SUM(CAST(`f:whole` AS DOUBLE)) AS DECIMAL(38, 0))",
        "spans",
    ),
    _flink(
        "overflow wrapped",
        "CAST(SUM(CAST(`f:whole` AS DECIMAL(38, 0))) AS DECIMAL(38, 0))",
        "CAST(SUM(`f:whole`) AS DECIMAL(38, 0))",
        "of_whole",
    ),
    _flink("key escaping dropped", "REPLACE(REPLACE(`f:a`, '%', '%25'), '|', '%7C')", "`f:a`", "by_pair"),
)
MUTATIONS = (*ONLINE, *KERNEL, *SMALL, *SPARK, *LOAD, *STREAM)


def of_engine(engine: str, among: Iterable[Mutation] = MUTATIONS) -> list[Mutation]:
    """The mutations of an engine."""
    return [mutation for mutation in among if mutation.engine == engine]


def table(caught: Sequence[tuple[Mutation, int]]) -> str:
    """What was caught by how many cases: rules down, engines across."""
    engines = ("online", "kernel", "spark", "spark-load", "flink")
    counts: dict[str, dict[str, int]] = {}
    for mutation, number in caught:
        counts.setdefault(mutation.rule, {})[mutation.engine] = number
    width = max(map(len, counts), default=4)
    lines = ["  ".join(["rule".ljust(width), *(engine.rjust(10) for engine in engines)])]
    for rule, by_engine in counts.items():
        cells = [str(by_engine[engine]) if engine in by_engine else "." for engine in engines]
        lines.append("  ".join([rule.ljust(width), *(cell.rjust(10) for cell in cells)]))
    return "\n".join(lines)
