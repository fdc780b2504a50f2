"""Keys read back from the store are the keys that were written; what is no key is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coeval.spec.keys import decode_key, encode_key
from coeval.spec.model import Field
from coeval.spec.types import BOOL, DATE, INT64, STRING

FIELDS = (Field("a", INT64), Field("b", STRING), Field("c", BOOL), Field("d", DATE))
KEYS = st.tuples(
    st.integers(-(2**63), 2**63 - 1), st.text(alphabet="a|%7C25 é"), st.integers(0, 1), st.integers(-(10**5), 10**5)
)


@given(KEYS)
def test_decoding_undoes_encoding(key: tuple[int, str, int, int]) -> None:
    assert decode_key(FIELDS, encode_key(FIELDS, key)) == key


@pytest.mark.parametrize("text", ["i1", "i1|sx|b1|d1|i2", "sx|sx|b1|d1", "i|sx|b1|d1", "ix|sx|b1|d1", ""])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode_key(FIELDS, text)


@pytest.mark.parametrize("text", ["i1_0|sx|b1|d1", "i+1|sx|b1|d1", "i01|sx|b1|d1", "i1|s%7c|b1|d1", "i 1|sx|b1|d1"])
def test_what_no_engine_writes_is_no_key(text: str) -> None:
    with pytest.raises(ValueError, match="not how a key is written"):
        decode_key(FIELDS, text)


@given(KEYS, KEYS)
def test_two_keys_never_share_a_text(one: tuple[int, str, int, int], other: tuple[int, str, int, int]) -> None:
    assert (encode_key(FIELDS, one) == encode_key(FIELDS, other)) == (one == other)


def test_a_number_is_not_its_text_and_parts_do_not_run_together() -> None:
    number, text = Field("a", INT64), Field("a", STRING)
    assert encode_key([number], [1]) != encode_key([text], ["1"])
    assert encode_key([text, text], ["1", "23"]) != encode_key([text, text], ["12", "3"])
    assert encode_key([text, text], ["a|sb", "c"]) != encode_key([text, text], ["a", "b|sc"])
