"""The handoff between batch and stream as pure decisions: which cut a view needs, whether the store covers a stream."""

from __future__ import annotations

from collections.abc import Mapping

from coeval.aggregations.tiles import tile_plan
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, RowView, View, WindowedView
from coeval_pipelines.control import Certificate


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


def is_streamed(view: View) -> bool:
    """Whether the stream writes the view; the others are only loaded by batch."""
    return isinstance(view, WindowedView) or view.stream


def covers(certificate: Certificate, topic: str, offsets: Mapping[int, int | None]) -> bool:
    """Whether a changelog, written up to `offsets` (next to read, by partition), has reached a certificate's ends."""
    # A certificate that does not speak of the topic is of another deployment, and proves nothing of this one.
    ends = certificate.ends.get(topic)
    return ends is not None and all((offsets.get(partition) or 0) >= end for partition, end in ends.items())
