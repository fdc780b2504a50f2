"""What canaries found last, kept in the control plane's database: written by who sends them, read by `status`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from coeval.settings import Settings
from coeval.spec.model import View

_METADATA = sa.MetaData()
_TABLE = sa.Table(
    "canary_latency",
    _METADATA,
    sa.Column("view", sa.String, primary_key=True),
    sa.Column("version", sa.String, primary_key=True),
    sa.Column("p50", sa.Float),
    sa.Column("slowest", sa.Float),
    sa.Column("p99", sa.Float),
    sa.Column("last", sa.Float),
    sa.Column("samples", sa.Integer, nullable=False),
    sa.Column("waiting", sa.Float, nullable=False),
    sa.Column("missed", sa.Integer, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Freshness:
    """How fresh a view version is: seconds from producing an event to its being readable, of the newest canaries.

    `p50` is the middle of them, `slowest` the greatest; `p99` is of many more (hours of them), `last` the newest one.

    `waiting` is how long the oldest canary is under way that is not seen yet (0: none is); `missed` counts those that
    were not seen within the view's promise since their sender started. `at` is when this was so (microseconds UTC).
    """

    view: str
    version: str
    p50: float | None
    slowest: float | None
    p99: float | None
    last: float | None
    samples: int
    waiting: float
    missed: int
    at: int


class FreshnessBook:
    """The table of freshness; one row per view version, the newest."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        _METADATA.create_all(self._engine)

    @staticmethod
    def open(settings: Settings) -> FreshnessBook:
        """The one in the control plane that the settings name."""
        settings.home.mkdir(parents=True, exist_ok=True)
        return FreshnessBook(settings.control_url)

    def close(self) -> None:
        """Release every connection."""
        self._engine.dispose()

    def write(self, found: Iterable[Freshness]) -> None:
        """Replace the rows of these view versions."""
        with self._engine.begin() as connection:
            for item in found:
                same = (_TABLE.c.view == item.view, _TABLE.c.version == item.version)
                connection.execute(sa.delete(_TABLE).where(*same))
                connection.execute(sa.insert(_TABLE).values(**asdict(item)))

    def read(self) -> dict[tuple[str, str], Freshness]:
        """What is known, by view and version."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_TABLE)).all()
        return {(row.view, row.version): Freshness(**row._asdict()) for row in rows}


def known(book: Mapping[tuple[str, str], Freshness], view: View, now: int, stale: int) -> Freshness | None:
    """What canaries say of a view, unless that is older than `stale` (microseconds)."""
    found = book.get((view.name, view.version))
    return found if found and now - found.at <= stale else None
