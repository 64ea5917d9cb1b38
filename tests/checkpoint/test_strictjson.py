import json
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.checkpoint.strictjson import parse
from rlmerge.errors import CheckpointError


def test_reads_json():
    assert parse(b'{"a": [1, 2.5, "\xc3\xa9"], "b": {"a": null}}', "f") == {"a": [1, 2.5, "é"], "b": {"a": None}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": "\xff"}', "not UTF-8 text \\(byte 7\\)"),
        (b'{"a": 1', "not valid JSON"),
        (b"", "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 101 + b"]" * 101, "nested too deeply"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "nested too deeply"),
        (b"[" + b"[]," * 2_000_000 + b"1]", "holds more than 2,000,000 values"),
        (b'"\\ud800"', "half of a surrogate pair"),
        (b'["a", {"b": ["\\udfff"]}]', "half of a surrogate pair"),
        (b'{"\\uD800x\\uDC00": 1}', "half of a surrogate pair"),
        (b'"\\udc00\\ud800"', "half of a surrogate pair"),
        (b'"\\ud800\\u0041"', "half of a surrogate pair"),
        (b'"\\ud800\\ud800\\udc00"', "half of a surrogate pair"),
        (b"1" * 5000, "not valid JSON"),
        (b'{"a": 1, "b": 2, "a": 1}', "the key 'a' appears twice"),
        (b'{"outer": {"k": 1, "k": 2}}', "the key 'k' appears twice"),
    ],
)
def test_refuses(data, message):
    with pytest.raises(CheckpointError, match=f"^file.json: .*{message}"):
        parse(data, "file.json")


def test_duplicate_keys_can_be_allowed_and_the_last_one_counts():
    assert parse(b'{"a": 1, "a": 2}', "f", unique_keys=False) == {"a": 2}


def test_what_looks_like_half_a_pair():
    assert parse(b'["\\ud83d\\ude00", "\\\\ud800", "\\\\\\ud83d\\ude00", "\\u00e9"]', "f") == [
        "\U0001f600",
        "\\ud800",
        "\\\U0001f600",
        "é",
    ]


@given(st.text(st.characters(), max_size=20), st.text(st.characters(), max_size=3))
def test_any_text_in_escapes_is_read_as_it_is_or_refused(text, key):
    data = json.dumps({key: [text]}).encode()
    try:
        text.encode(), key.encode()
    except UnicodeEncodeError:
        # Two halves in a row are written as the escapes of a pair, which is what a reader makes of them.
        joined = json.loads(data)
        with nullcontext() if _is_text(joined) else pytest.raises(CheckpointError, match="half of a surrogate pair"):
            assert parse(data, "f") == joined
    else:
        assert parse(data, "f") == {key: [text]}


def _is_text(content):
    [(key, [text])] = content.items()
    return not any("\ud800" <= character <= "\udfff" for character in key + text)


def test_the_deepest_that_is_read():
    assert parse(b"[" * 100 + b"]" * 100, "f")
    assert len(parse(b"[" + b"[[]]," * 200 + b"1]", "f")) == 201


def test_constants_of_configurations_are_read():
    assert parse(b'{"time_step_limit": [0.0, Infinity]}', "f") == {"time_step_limit": [0.0, float("inf")]}
