import pytest

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
