import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlmerge.jsondata import JsonStore, digest, plain, write_text


@dataclass(frozen=True)
class Pair:
    a: Any
    b: Any = None


@dataclass(frozen=True)
class Spoken(Pair):
    def to_dict(self):
        return {"says": self.a}


def test_everything_becomes_what_json_holds():
    given = Pair((1, math.nan, -math.inf, Path("x/y")), {1: Spoken(Pair("τ")), None: [True, 0.5]})
    assert plain(given) == {
        "a": [1, None, None, "x/y"],
        "b": {"1": {"says": {"a": "τ", "b": None}}, "None": [True, 0.5]},
    }
    assert json.loads(json.dumps(plain(given), allow_nan=False)) == plain(given)


def test_a_string_is_no_sequence_and_numpy_floats_are_floats():
    assert plain(["abc", np.float64("nan"), np.float64(0.5)]) == ["abc", None, 0.5]


def test_the_digest_follows_content_and_not_order():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1}) != digest({"a": 1, "b": [2, 1]})


def test_a_kept_value_is_found_by_what_decided_it(tmp_path):
    store = JsonStore(tmp_path / "new" / "folder")
    entry = store.entry({"model": "x", "seeds": (1, 2)})
    assert entry.load() is None
    entry.save({"score": 0.5, "name": "τ"})
    assert store.entry({"seeds": [1, 2], "model": "x"}).load() == {"score": 0.5, "name": "τ"}
    assert store.entry({"model": "y", "seeds": (1, 2)}).load() is None
    assert [file.name for file in store.directory.iterdir()] == [f"{digest(entry.about)}.json"]
    entry.drop()
    entry.drop()
    assert entry.load() is None


def test_a_label_starts_the_file_name(tmp_path):
    assert JsonStore(tmp_path).entry({}, "merge:a/b").file.name == f"merge-a-b-{digest({})[:16]}.json"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"about": 1}',
        json.dumps({"about": {"x": 1}, "digest": digest(2), "value": 3}).encode(),
        json.dumps({"about": {"x": 2}, "digest": digest(3), "value": 3}).encode(),
    ],
)  # fmt: skip
def test_a_doubtful_file_is_not_used(tmp_path, content):
    entry = JsonStore(tmp_path).entry({"x": 1})
    entry.file.write_bytes(content)
    assert entry.load() is None
    entry.save(3)
    assert entry.load() == 3


def test_what_json_has_no_form_for_is_refused_and_leaves_nothing(tmp_path):
    entry = JsonStore(tmp_path).entry({"x": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        entry.save(math.nan)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_the_old_one_or_the_new_one(tmp_path, monkeypatch):
    file = tmp_path / "f.json"
    write_text(file, "old")
    assert file.stat().st_mode & 0o777 == 0o666 & ~umask()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(file, "new")
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def umask():
    now = os.umask(0)
    os.umask(now)
    return now
