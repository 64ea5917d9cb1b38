from pathlib import Path
from types import SimpleNamespace

import pytest

from rlmerge.report.names import cut_names, model_names, shortest_ends
from rlmerge.text import columns


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/a/x", "/a/y"], ["x", "y"]),
        (["/runs/1/out", "/runs/2/out", "/base"], ["1/out", "2/out", "base"]),
        (["/1/run/out", "/2/run/out"], ["1/run/out", "2/run/out"]),
        (["out", "/a/out"], ["out", "a/out"]),
        (["/a/x", "/a/x", "/a/y", "/a/x"], ["x", "x (2)", "y", "x (3)"]),
    ],
)
def test_names_are_as_short_as_they_can_be(paths, names):
    assert shortest_ends([Path(path).parts for path in paths]) == names


def test_no_paths_have_no_names():
    assert shortest_ends([]) == []


def test_cut_names_stay_different_and_lose_what_moves_a_cursor():
    long = ["a" * 30 + str(i) + "b" * 30 for i in range(3)]
    short = cut_names([*long, long[0], "ok", "x\x1b[31m\n", "数" * 30], 20)
    assert list(short) == [*long, "ok", "x\x1b[31m\n", "数" * 30]
    assert len(set(short.values())) == 6 and all(columns(name) <= 20 for name in short.values())
    assert short["ok"] == "ok" and short["x\x1b[31m\n"] == "x\\x1b[31m\\n"


def named(reference, revision=None):
    return SimpleNamespace(reference=reference, revision=revision)


def test_models_are_called_by_what_the_user_wrote(tmp_path, monkeypatch):
    (tmp_path / "step-100").mkdir()
    (tmp_path / "latest").symlink_to("step-100")
    monkeypatch.chdir(tmp_path / "step-100")
    given = [named("."), named(f"{tmp_path}/latest/"), named("org/math", "abc"), named(f"{tmp_path}/step-100")]
    assert model_names(given) == ["step-100", "latest", "math", "step-100 (2)"]
    assert model_names([named("org/math", "abc"), named("other/math", "abc")]) == ["org/math", "other/math"]
