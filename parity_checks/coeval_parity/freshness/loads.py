"""How fresh a view is that only batch loads: its last load, and since when its files ask for another.

It knows the control plane and files.
"""

from __future__ import annotations

from pathlib import Path

from coeval.files import is_uri
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import BatchSource, View
from coeval_parity.freshness.judge import due_since, load_freshness
from coeval_parity.freshness.result import LoadFreshness, ViewFreshness
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.loads import LoadBook, Pins
from coeval_pipelines.offline.due import CHANGED, TURNED, files_changed

_ELSEWHERE = "its files are not on this machine: whether they changed is not known"


def look_at_load(
    settings: Settings, control: ControlPlane, manifest: Manifest, view: View, before: ViewFreshness | None, now: int
) -> tuple[LoadFreshness, tuple[str, ...]]:
    """How fresh a view's last load is at `now` (microseconds UTC), and what else is to be said.

    `before` is what the newest run that was kept found: files do not say since when they are others.
    """
    last = control.last_load(view.name, view.version)
    if last is None:
        return load_freshness(view, None, "", 0, now), ()
    pins, source = LoadBook(control).pins(last.run), manifest.sources[view.source]
    if pins is None or not isinstance(source, BatchSource):
        return load_freshness(view, last.rows_at, "", 0, now), ()
    due, changed = _due(settings, source, pins, now)
    known = before if before is not None and before.version == view.version else None
    found = load_freshness(view, last.rows_at, due, due_since(known, last.rows_at, changed, now), now)
    return found, (_ELSEWHERE,) if is_uri(source.path) else ()


def _due(settings: Settings, source: BatchSource, pins: Pins, now: int) -> tuple[str, int | None]:
    """Why a view of files is to be loaded again ('': it is not), and since when as far as that can be told."""
    turned = pins.turns_at is not None and pins.turns_at <= now
    if is_uri(source.path):
        return (TURNED, pins.turns_at) if turned else ("", None)
    try:
        due = files_changed(settings, source, pins, now)
        return due, pins.turns_at if due == TURNED else _changed_at(settings.data_path(source.path))
    except FileNotFoundError:  # they are being changed at this moment
        return CHANGED, None


def _changed_at(place: str) -> int | None:
    """When the newest of some files was changed (microseconds UTC); None: there is none."""
    root = Path(place)
    paths = [root] if root.is_file() else [path for path in root.rglob("*") if path.is_file()]
    return max((path.stat().st_mtime_ns // 1000 for path in paths), default=None)
