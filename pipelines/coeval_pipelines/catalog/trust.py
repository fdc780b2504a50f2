"""What may be read back from a registry: only what holds no code. It knows registry protos alone.

Feast unpickles functions wherever a registry holds them, and executes the source that it keeps beside them. Coeval
writes neither: pickles are bytes, and it registers no bytes; of source it writes one stub, recognised to the letter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from feast.protos.feast.core.FeatureView_pb2 import FeatureView
from feast.protos.feast.core.OnDemandFeatureView_pb2 import OnDemandFeatureView
from feast.protos.feast.core.StreamFeatureView_pb2 import StreamFeatureView
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from feast.protos.feast.core.Registry_pb2 import Registry

_STUB = re.compile(
    r'def (?P<name>[a-z_]\w*)\(inputs\):\n    raise NotImplementedError\("Coeval runs [\w.]+:(?P=name)"\)\n',
    re.ASCII | re.IGNORECASE,
)
_FUNCTIONS = ("UserDefinedFunction", "UserDefinedFunctionV2")
_VERSIONED: dict[str, Callable[[bytes], Any]] = {
    "feature_view": FeatureView.FromString,
    "stream_feature_view": StreamFeatureView.FromString,
    "on_demand_feature_view": OnDemandFeatureView.FromString,
}


def stub(path: str) -> str:
    """The source that stands in Feast's registry for a function with an import path: it only says who runs it."""
    return f'def {path.rpartition(":")[2]}(inputs):\n    raise NotImplementedError("Coeval runs {path}")\n'


def leave_out_code(registry: Registry) -> int:
    """Forget every object of a registry that holds code, before Feast sees it; how many there were.

    Coeval registers none, so the files say what is to be registered instead; it counts as new.
    """
    left = 0
    for field, value in registry.ListFields():
        if field.message_type is None or field.name == "feature_view_version_history":
            continue
        if isinstance(value, Message):
            if not _is_plain(value):
                registry.ClearField(field.name)
                left += 1
        else:
            left += _keep(value, _is_plain)
    return left + _keep(registry.feature_view_version_history.records, _is_plain_record)


def _keep(items: Any, accepted: Callable[[Any], bool]) -> int:
    kept = [item for item in items if accepted(item)]
    left = len(items) - len(kept)
    if left:
        copies = [type(item).FromString(item.SerializeToString()) for item in kept]
        del items[:]
        items.extend(copies)
    return left


def _is_plain_record(record: Any) -> bool:
    """Whether an earlier version of a view holds no code; Feast keeps it as the bytes of its proto."""
    read = _VERSIONED.get(record.feature_view_type)
    try:
        return read is not None and _is_plain(read(record.feature_view_proto))
    except DecodeError:
        return False


def _is_plain(message: Message) -> bool:
    """Whether a message, with all that it holds, has no bytes and no function but the stub."""
    if message.DESCRIPTOR.name in _FUNCTIONS and not _is_stub(message):
        return False
    for field, value in message.ListFields():
        if field.type == field.TYPE_BYTES:
            return False
        if field.message_type and _may_hold_code(field.message_type) and not all(map(_is_plain, _messages(value))):
            return False
    return True


def _is_stub(function: Any) -> bool:
    # A body text with nothing in it is left to Feast, which has nothing to run then.
    return not function.body and (not function.body_text or _STUB.fullmatch(function.body_text) is not None)


def _messages(value: Any) -> Iterator[Message]:
    if isinstance(value, Message):
        yield value
    elif hasattr(value, "values"):
        yield from value.values()
    else:
        yield from value


@cache
def _may_hold_code(descriptor: Any) -> bool:
    """Whether messages of this type can hold bytes or a function: most of a registry cannot, and is not walked."""
    seen, waiting = {descriptor.full_name}, [descriptor]
    while waiting:
        current = waiting.pop()
        if current.name in _FUNCTIONS or any(field.type == field.TYPE_BYTES for field in current.fields):
            return True
        for field in current.fields:
            if field.message_type and field.message_type.full_name not in seen:
                seen.add(field.message_type.full_name)
                waiting.append(field.message_type)
    return False
