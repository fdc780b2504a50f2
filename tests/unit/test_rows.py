"""Claims about stored rows: two decoders that agree, and layouts that nobody knows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coeval.online.layout import LAYOUT, NO_FLOOR
from coeval.online.result import Block, Status
from coeval.online.rows import FEW, ROW_HEADER, FewRows, ManyRows, RowCodec
from coeval.spec.model import Field
from coeval.spec.types import DataType, Kind, Physical

Q = 1_800_000_000_000_000
TTL = 1_000_000
TYPES = ("int64", "float64", "decimal(9,2)", "decimal(38,3)", "string", "bool", "timestamp", "date")
_VALUES = {
    Kind.INT64: st.integers(-(2**63), 2**63 - 1),
    Kind.FLOAT64: st.floats(allow_nan=False, allow_infinity=False),
    Kind.STRING: st.text(st.characters(exclude_categories=("Cs",)), max_size=9),
    Kind.BOOL: st.integers(0, 1),
    Kind.TIMESTAMP: st.integers(0, Q),
    Kind.DATE: st.integers(-1000, 30000),
}


def _value(data_type: DataType) -> st.SearchStrategy[Physical]:
    if data_type.kind is Kind.DECIMAL:
        low, high = data_type.limits
        return st.none() | st.integers(low, high)
    return st.none() | _VALUES[data_type.kind]


@st.composite
def _cases(draw: st.DrawFn) -> tuple[RowCodec, list[bytes | None], list[bool]]:
    kinds = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=12))
    features = [Field(f"f{number}", DataType.parse(kind)) for number, kind in enumerate(kinds)]
    codec = RowCodec(features, draw(st.sampled_from((0, TTL))))
    blobs: list[bytes | None] = []
    for _ in range(draw(st.integers(0, 6))):
        if draw(st.integers(0, 4)) == 0:
            blobs.append(None)
            continue
        event_ts = Q - draw(st.sampled_from((0, TTL, TTL + 1)))
        floor = draw(st.sampled_from((NO_FLOOR, Q - 1, Q)))
        layout = draw(st.sampled_from((LAYOUT, LAYOUT, LAYOUT, LAYOUT - 1)))
        header = ROW_HEADER.pack(layout << 24, 0, event_ts, Q, 7, floor)
        blob = header + codec.encode([draw(_value(field.type)) for field in features])
        blobs.append(blob[: codec.size - 1] if draw(st.integers(0, 9)) == 0 else blob)
    doubted = draw(st.booleans()) and [draw(st.booleans()) for _ in blobs]
    return codec, blobs, doubted or []


def _seen(codec: RowCodec, block: Block) -> object:
    columns = {name: block.column(name) for name in codec.names}
    numeric = tuple(name for name in codec.names if codec.features[codec.position[name]].type.kind is not Kind.STRING)
    numbers = block.numbers(numeric) if numeric else np.empty((0, 0))
    by_column = [columns[name].numeric() for name in numeric]
    np.testing.assert_array_equal(numbers, np.column_stack(by_column) if numeric else numbers)
    return (
        {name: (block.logical(name), column.logical()) for name, column in columns.items()},
        {name: (column.null.tolist(), column.status.tolist()) for name, column in columns.items()},
        block.codes(codec.names).tolist(),
        block.event_ts.tolist(),
        numbers.tolist() if not np.isnan(numbers).any() else np.nan_to_num(numbers, nan=-1).tolist(),
    )


@settings(max_examples=300)
@given(_cases())
def test_few_and_many_rows_are_decoded_alike(case: tuple[RowCodec, list[bytes | None], list[bool]]) -> None:
    codec, blobs, doubted = case
    assert _seen(codec, FewRows(codec, blobs, doubted, Q)) == _seen(codec, ManyRows(codec, blobs, doubted, Q))


@pytest.mark.parametrize("rows", [1, FEW, FEW + 1])
def test_a_row_of_another_layout_is_unavailable_and_never_a_value(rows: int) -> None:
    codec = RowCodec([Field("amount", DataType.parse("int64"))])
    blob = ROW_HEADER.pack((LAYOUT + 1) << 24, 0, Q, Q, 7, NO_FLOOR) + codec.encode([5])
    block = codec.read([blob] * rows, codec.names, (), Q)
    assert set(block.codes(codec.names)[:, 0].tolist()) == {Status.UNAVAILABLE}
    assert block.logical("amount") == [None] * rows
