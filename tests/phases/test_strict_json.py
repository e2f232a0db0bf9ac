"""Strict JSON: what Python's json accepts and it refuses, with its location; what both accept."""

import json
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phases.base import strict_json
from phases.base.strict_json import StrictJsonError, loads

# Python's json names the comma from 3.13 on, and what follows it before.
TRAILING_COMMA = 9
if sys.version_info >= (3, 13):
    TRAILING_COMMA = 8


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": 1, "a": 2}', "a: duplicate key"),
        ('{"p": [{}, {"id": 1, "x": 0, "id": 1}]}', "p[1].id: duplicate key"),
        ('{"a": NaN}', "a: NaN is not a number of JSON"),
        ('{"a": [1, -Infinity]}', "a[1]: -Infinity is not a number of JSON"),
        ("[[1e999]]", "[0][0]: 1e999 is too large for a 64-bit float"),
        ('{"a b": -1e400}', '["a b"]: -1e400 is too large for a 64-bit float'),
        (
            "18446744073709551616",
            "(document): an integer of 20 digits (184467440737…); at most 64 bits are read",
        ),
        (
            "9" * 5000,
            "(document): an integer of 5000 digits (999999999999…); at most 64 bits are read",
        ),
        (r'{"a": "\ud800"}', "a: a lone surrogate in a string"),
        (r'{"\udc00": 1}', r'["\udc00"]: a lone surrogate in a key'),
        ('{"a": 1,}', f"line 1, column {TRAILING_COMMA}: "),
        ("[1\n,,]", "line 2, column 2: Expecting value"),
        ("[1] x", "line 1, column 5: Extra data"),
        ("", "line 1, column 1: Expecting value"),
        ('{"a": "b', "line 1, column 7: Unterminated string"),
        ('"\\', "line 1, column 1: "),
        ('"a\nb"', "line 1, column 3: Invalid control character"),
        ("01", "line 1, column 2: Extra data"),
        ("\ufeff1", "line 1, column 1: "),
        ("\n[" + "[" * 64, "line 2, column 65: nested deeper than 64"),
    ],
)
def test_refused_with_its_location(text, problem):
    with pytest.raises(StrictJsonError) as error:
        loads(text.encode())
    assert error.value.problems[0].startswith(problem)


def test_all_problems_come_at_once():
    with pytest.raises(StrictJsonError) as error:
        loads(b'{"a": NaN, "b": {"c": 1, "c": 1e999}}')
    assert [problem.split(":")[0] for problem in error.value.problems] == ["a", "b.c", "b.c"]
    with pytest.raises(StrictJsonError) as error:
        loads(b"[" + b",".join([b"NaN"] * 1000) + b"]")
    assert len(error.value.problems) == strict_json.MAX_PROBLEMS + 1
    assert error.value.problems[-1] == "… and 980 more"


def test_not_utf8():
    with pytest.raises(StrictJsonError, match="byte 2: not UTF-8"):
        loads(b'"a\xff"')
    with pytest.raises(StrictJsonError):
        loads(json.dumps("x").encode("utf-16"))


def test_size_is_capped_before_anything_is_parsed():
    assert loads(b'"123"', max_bytes=5) == "123"
    with pytest.raises(StrictJsonError, match="6 bytes; at most 5"):
        loads(b'"1234"', max_bytes=5)


def test_depth_counts_brackets_outside_strings_only():
    assert loads(b'["[[[[\\"[[[["]', max_depth=1) == ['[[[["[[[[']
    assert loads(b'[[], [], {"a": {}}]', max_depth=3)
    with pytest.raises(StrictJsonError, match="column 16: nested deeper than 2"):
        loads(b'[[], [], {"a": {}}]', max_depth=2)


BOMBS = {
    "lists": b"[" * 5_000_000,
    "objects": b'{"a":' * 1_000_000,
    "escapes": b'"' + b'\\"' * 2_000_000,
    "quotes": b'["' * 2_000_000,
    "digits": b"1" * 5_000_000,
    "backslashes": b"\\" * 5_000_000,
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_bombs_are_refused_quickly(bomb):
    begin = time.process_time()
    with pytest.raises(StrictJsonError):
        loads(bomb)
    assert time.process_time() - begin < 5


def test_a_depth_beyond_this_process_is_refused():
    with pytest.raises(StrictJsonError, match="nested too deep"):
        loads(b"[" * 100_000 + b"]" * 100_000, max_depth=1_000_000)


#### laws

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-strict_json.MAX_INTEGER, strict_json.MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(json_values, st.booleans())
def test_accepts_what_json_writes(value, ascii_only):
    text = json.dumps(value, allow_nan=False, ensure_ascii=ascii_only)
    assert repr(loads(text.encode())) == repr(value)


@settings(deadline=None)
@given(
    st.binary()
    | st.text(alphabet='{}[]",:\\ \n0123456789.eE+-truefalsnINity\ud7ff\U0001f600').map(
        lambda s: s.encode()
    )
)
def test_raises_nothing_but_its_own_error_and_agrees_with_json(data):
    try:
        value = loads(data)
    except StrictJsonError as error:
        assert error.problems
    else:
        assert repr(value) == repr(json.loads(data))


@settings(deadline=None)
@given(json_values, st.data())
def test_a_damaged_document_never_crashes_it(value, data):
    text = bytearray(json.dumps(value).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        loads(bytes(text))
    except StrictJsonError as error:
        assert str(error)
