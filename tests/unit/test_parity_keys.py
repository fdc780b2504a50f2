"""Keys read back from the store are the keys that were written; what is no key is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coeval.spec.keys import encode_key
from coeval.spec.model import Field
from coeval.spec.types import BOOL, DATE, INT64, STRING
from coeval_parity.keys import decode_key

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
