"""Changelogs that have forgotten what a store would need: whether batch has all of it. It asks the broker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from coeval.errors import EngineError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import View
from coeval.spec.types import iso
from coeval_pipelines.coordination.handoff import DELIVERY_SLACK, is_streamed, required_cut
from coeval_pipelines.coordination.runs import now

_MILLISECOND = 1000


def check_changelogs(settings: Settings, manifest: Manifest, views: Iterable[View], cuts: Mapping[str, int]) -> None:
    """Refuse to fill views whose changelog lost records of tiles or rows that batch does not write at its cut.

    Raises:
        EngineError: naming the views, and the backfill that fills them.
        BrokerError: the broker does not answer.
    """
    from coeval_pipelines.streaming.broker import Broker
    from coeval_pipelines.streaming.names import changelog_topic

    streamed = [view for view in views if is_streamed(view)]
    if not streamed:
        return
    with Broker(settings.kafka) as broker:
        lost = {view.name: broker.forgotten_until(changelog_topic(manifest, view)) for view in streamed}
    needed = {view.name: cut_without(view, manifest, lost[view.name]) for view in streamed}
    short = {name: cut for name, cut in needed.items() if cut > cuts[name]}
    if short:
        raise refusal(short, now())


def cut_without(view: View, manifest: Manifest, forgotten_until: int | None) -> int:
    """The earliest cut (microseconds UTC) at which batch writes all that a changelog's lost records said. Pure.

    `forgotten_until` is when its first record was written: the lost ones were by then, and so are of tiles that began
    and of rows that were available by then. None: it lost nothing.
    """
    # Kafka keeps whole milliseconds.
    return 0 if forgotten_until is None else required_cut(view, manifest, forgotten_until + _MILLISECOND)


def refusal(short: Mapping[str, int], now: int) -> EngineError:
    """The error for views, by the cut that they need. Pure."""
    command = f"coeval backfill run {' '.join(short)} --correct"
    until = max(short.values()) + DELIVERY_SLACK
    return EngineError(
        f"The changelogs of {', '.join(short)} have lost records that no batch load has written: "
        "the store would be short of them.",
        f"Run {command}" if until <= now else f"Run, after {iso(until)}: {command}",
    )
