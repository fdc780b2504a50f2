"""What a backfill would write, where it would cut the log and why, and what that takes. It changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from coeval.client import open_redis
from coeval.errors import EngineError
from coeval.online.writer import OnlineWriter
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import View, WindowedView
from coeval.spec.types import iso
from coeval_pipelines.catalog.costs import KEY_BYTES, planned_bytes
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.loads import OPEN, READY, LoadBook
from coeval_pipelines.coordination.fill import default_limits, described, kind_of
from coeval_pipelines.coordination.handoff import cut_of, is_streamed, required_cut
from coeval_pipelines.offline.estimates import Estimate, estimate
from coeval_pipelines.offline.throttle import Limits

if TYPE_CHECKING:
    from coeval_pipelines.control.loads import LoadRun

_MEASURED = 50
"""The newest loads whose rate may stand for the next one's."""


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """What a load of a view would be. Instants are microseconds UTC; None is not known.

    `problem` says why it cannot begin now. `resumes` is the load that would be gone on with. `redis_bytes` is the most
    that its keys can take; `seconds` is how long writing takes, computing not counted, at the rate that `rate_from`
    was written at.
    """

    view: str
    version: str
    kind: str
    problem: str
    resumes: int | None
    cut: int | None
    cut_because: str
    stream_from: int | None
    estimate: Estimate | None
    redis_bytes: int | None
    limits: str
    seconds: float | None
    rate_from: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        found = self.estimate
        return asdict(self) | {"estimate": None if found is None else asdict(found) | {"total": found.total}}


def plan_backfill(
    settings: Settings,
    manifest: Manifest,
    control: ControlPlane,
    views: Sequence[View],
    wanted: int | None,
    limits: Limits | None,
    now: int,
) -> list[ViewPlan]:
    """What loads of views would be; `wanted` is the cut of a correction (microseconds UTC).

    Raises:
        StoreError: the online store does not answer.
    """
    chosen = limits or default_limits(settings, control, manifest)
    with closing(open_redis(settings)) as client:
        writer = OnlineWriter(client, manifest.tenant)
        return [_plan(settings, manifest, control, writer, view, wanted, chosen, now) for view in views]


def _plan(
    settings: Settings,
    manifest: Manifest,
    control: ControlPlane,
    writer: OnlineWriter,
    view: View,
    wanted: int | None,
    limits: Limits,
    now: int,
) -> ViewPlan:
    book = LoadBook(control)
    deployment = control.deployment(view.name, view.version)
    cut, problem = None, ""
    try:
        cut = cut_of(view, manifest, control, wanted, now)
    except EngineError as error:
        problem = error.reason
    found = book.of(view.name, view.version, OPEN)
    resumed = found[0] if found and cut is not None and found[0].cut >= cut else None
    counted = None if cut is None else estimate(settings, manifest, view, resumed.cut if resumed else cut)
    rate, origin = _rate(book, view, limits)
    return ViewPlan(
        view=view.name,
        version=view.version,
        kind=resumed.kind if resumed else kind_of(control, writer, view),
        problem=problem,
        resumes=resumed.run if resumed else None,
        cut=resumed.cut if resumed else cut,
        cut_because=_why(view, manifest, control, wanted, resumed, cut),
        stream_from=deployment.since if deployment and is_streamed(view) else None,
        estimate=counted,
        redis_bytes=None if counted is None else counted.keys * (planned_bytes(view, manifest) + KEY_BYTES),
        limits=described(limits),
        seconds=counted.total / rate if counted and rate else None,
        rate_from=origin,
    )


def _why(
    view: View, manifest: Manifest, control: ControlPlane, wanted: int | None, resumed: LoadRun | None, cut: int | None
) -> str:
    """Which of the reasons for a cut decides."""
    deployment = control.deployment(view.name, view.version)
    last = control.last_load(view.name, view.version)
    if deployment is None or cut is None:
        return ""
    if resumed:
        return f"load {resumed.run} was interrupted"
    if cut == wanted:
        return "now, less what a delivery may take"
    if not isinstance(view, WindowedView) and not is_streamed(view):
        return "files have no cut"
    if last and cut == last.cut and cut > required_cut(view, manifest, deployment.since):
        return f"where load {last.run} cut it"
    return f"the last tile before {iso(deployment.since)}, from where the stream owns them, is final"


def _rate(book: LoadBook, view: View, limits: Limits) -> tuple[float | None, str]:
    """Rows a second that a load is expected to write, and which load was so fast: of the view or of any, the largest,
    as small ones spend their time on other things."""
    measured = [run for run in book.newest(_MEASURED, [READY]) if run.per_second and run.rows]
    own = [run for run in measured if run.view == view.name]
    if limits.writes_per_second:
        return limits.writes_per_second, "the limit that is asked for"
    if not measured:
        return None, "no load was measured yet"
    run = max(own or measured, key=lambda item: item.rows or 0)
    return run.per_second, f"{run.per_second:,.0f} rows a second, as load {run.run} of {run.view}"
