"""The handoff between batch and stream: which cut of the log a view needs, and whether a stream fills it."""

from __future__ import annotations

from coeval.aggregations.tiles import tile_plan
from coeval.errors import EngineError
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, RowView, View, WindowedView
from coeval.spec.time import MINUTE
from coeval.spec.types import iso
from coeval_pipelines.control import ControlPlane

DELIVERY_SLACK = 2 * MINUTE
"""How much later than its timestamp a record may stand in its topic: what a Kafka producer tries for by default.

A cut of the log stays that far behind the clock, or a tile could be written as final without such a record, under an
epoch that the stream cannot outdo.
"""


def required_cut(view: View, manifest: Manifest, since: int) -> int:
    """The earliest cut of the log at which every tile that the stream does not own is final (microseconds UTC).

    The stream owns the tiles that start at or after `since`; of each granularity the one before those must be over, and
    its allowed lateness too. Rows have no tiles: the log up to `since` is enough.
    """
    source = manifest.sources[view.source]
    if isinstance(view, RowView) or not isinstance(source, EventSource):
        return since
    plan = tile_plan(view, source)
    return max(item.first_owned(since) * item.hop for item in plan.granularities) + source.allowed_lateness


def cut_of(view: View, manifest: Manifest, control: ControlPlane, wanted: int | None, now: int) -> int:
    """Where a load of a view cuts the log (microseconds UTC): where it is wanted, never earlier than before, or than
    the handoff allows.

    Raises:
        EngineError: the view is not deployed, or its cut is still to come.
    """
    deployment = control.deployment(view.name, view.version)
    if deployment is None:
        raise EngineError(f"{view.name} is not deployed.", "Deploy it first: coeval stream deploy")
    last = control.last_load(view.name, view.version)
    cut = max(wanted or 0, last.cut if last else 0, required_cut(view, manifest, deployment.since))
    if cut > now:
        raise EngineError(
            f"{view.name} cannot be filled yet: the stream owns its tiles from {iso(deployment.since)} on, and the"
            f" last tile before those is final at {iso(cut)}.",
            f"Run it again after {iso(cut)}.",
        )
    return cut


def is_streamed(view: View) -> bool:
    """Whether the stream writes the view; the others are only loaded by batch."""
    return isinstance(view, WindowedView) or view.stream
