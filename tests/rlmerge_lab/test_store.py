"""Files that are whole or absent, and results named by what decides them."""

import json
import math

import pytest

from rlmerge.errors import RunError
from rlmerge_lab.store import MANIFEST, Records, partial_directory

IDENTITY = {"kind": "score", "tasks": ("a", "b"), "size": 0.1}


def test_what_is_kept_is_found_again(tmp_path):
    records = Records(tmp_path / "new" / "study")
    assert records.find("score.x", IDENTITY) is None
    kept = records.keep("score.x", IDENTITY, {"value": 1 / 3, "tasks": ("a",)}, 2.5)
    assert kept == Records(tmp_path / "new" / "study").find("score.x", IDENTITY)
    assert (kept["result"], kept["seconds"]) == ({"value": 1 / 3, "tasks": ["a"]}, 2.5)


def test_nothing_else_answers_to_an_identity(tmp_path):
    records = Records(tmp_path)
    records.keep("score.x", IDENTITY, 1, 0.0)
    assert records.find("score.x", {**IDENTITY, "size": 0.2}) is None
    assert records.find("score.y", IDENTITY) is None


def test_labels_with_colons_make_plain_file_names(tmp_path):
    Records(tmp_path).keep("merge.sar_merging:fisher", IDENTITY, 1, 0.0)
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("merge.sar_merging-fisher-")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"about": {}}', '{"about": {}, "value": {"result": 1}}'])
def test_a_damaged_file_is_no_result(tmp_path, content):
    records = Records(tmp_path)
    records.keep("score.x", IDENTITY, 1, 0.0)
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    assert records.find("score.x", IDENTITY) is None
    records.keep("score.x", IDENTITY, 2, 0.0)
    assert records.find("score.x", IDENTITY)["result"] == 2


def test_what_is_dropped_is_gone(tmp_path):
    records = Records(tmp_path)
    records.keep("score.x", IDENTITY, 1, 0.0)
    records.drop("score.x", IDENTITY)
    records.drop("score.x", IDENTITY)
    assert records.find("score.x", IDENTITY) is None


def test_a_disk_that_takes_nothing(tmp_path, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="No space left on device") as caught:
        Records(tmp_path).keep("score.x", IDENTITY, 1, 0.0)
    assert "continues" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_json_has_no_word_for_becomes_null(tmp_path):
    kept = Records(tmp_path).keep("score.x", IDENTITY, {"a": math.nan, "b": (1, math.inf)}, 0.0)
    assert kept["result"] == {"a": None, "b": [1, None]}
    assert Records(tmp_path).find("score.x", IDENTITY) == kept


def test_a_directory_appears_complete_or_not_at_all(tmp_path):
    out = tmp_path / "model"
    with pytest.raises(KeyError), partial_directory(out, {"n": 1}) as partial:
        (partial / "half").touch()
        raise KeyError
    assert not out.exists()
    with partial_directory(out, {"n": 2}) as partial:
        (partial / "whole").touch()
    assert {path.name for path in out.iterdir()} == {"whole", MANIFEST}
    assert json.loads((out / MANIFEST).read_text()) == {"n": 2}
