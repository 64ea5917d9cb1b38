"""Statistics kept between runs: the same bytes with and without them, and no harm from a damaged or stale cache."""

import io
import os
import time
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

import rlmerge
from rlmerge import Parameter, methods
from rlmerge.merging import cache, code, statistics
from rlmerge.methods import Statistic
from support.family import draw, merge, recipe, tree
from support.models import write_model


@pytest.fixture
def scanned(monkeypatch):
    """The names of statistics in the order in which their tensors are passed over."""
    found = []
    original = statistics.Statistics._pass

    def watched(self, tensors, open_, *more):
        found.extend(open_)
        return original(self, tensors, open_, *more)

    monkeypatch.setattr(statistics.Statistics, "_pass", watched)
    return found


def test_a_second_merge_scans_nothing_and_writes_the_same(family, tmp_path, own_cache, scanned):
    asked = recipe(family, "ties", density=0.1)
    merge(asked, tmp_path / "first")
    assert scanned, "the first merge scans"
    assert len(list(own_cache.iterdir())) == 1
    scanned.clear()
    merge(asked, tmp_path / "second")
    assert scanned == []
    merge(asked, tmp_path / "third", cache=False)
    assert scanned != []
    assert tree(tmp_path / "first") == tree(tmp_path / "second") == tree(tmp_path / "third")


@pytest.mark.parametrize(
    "change",
    [{"density": 0.2}, {"density": [0.1, 0.1, 0.2]}, {"scope": "global"}, {"on_nonfinite": "zero"}, {"count": 2}],
    ids=lambda change: next(iter(change)),
)
def test_another_question_is_not_answered_from_the_cache(family, tmp_path, scanned, change):
    merge(recipe(family, "ties", density=0.1), tmp_path / "first")
    scanned.clear()
    run = {key: change[key] for key in change if key == "on_nonfinite"}
    asked = recipe(family, "ties", **({"density": 0.1} | {key: change[key] for key in change if key not in run}))
    merge(asked, tmp_path / "second", **run)
    assert scanned


def test_another_seed_is_another_question_where_numbers_are_drawn(family, tmp_path, scanned):
    asked = recipe(family, "dare_linear", density=0.5, rescale="l1")
    merge(asked, tmp_path / "first", seed=1)
    scanned.clear()
    merge(asked, tmp_path / "second", seed=2)
    assert scanned
    scanned.clear()
    merge(asked, tmp_path / "third", seed=1)
    assert scanned == []
    assert tree(tmp_path / "first") != tree(tmp_path / "second")


def test_changed_code_is_asked_again(family, tmp_path, scanned, monkeypatch):
    """A formula that is being worked on has no new version, but new numbers."""
    asked = recipe(family, "ties", density=0.1)
    merge(asked, tmp_path / "first")
    before = rlmerge.plan(asked).digest
    scanned.clear()
    monkeypatch.setattr("rlmerge.merging.cache.code_digest", lambda: "other")
    monkeypatch.setattr("rlmerge.merging.plan.code_digest", lambda: "other")
    merge(asked, tmp_path / "second")
    assert scanned
    assert rlmerge.plan(asked).digest != before


def test_the_code_digest_covers_kernels_methods_and_drivers(monkeypatch):
    read = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda file: read.append(file.name) or original(file))
    code.code_digest.cache_clear()
    first = code.code_digest()
    assert {"ties.py", "parts.py", "random.py", "rounding.py", "select.py", "on_numpy.py", "statistics.py"} <= set(read)
    monkeypatch.setattr(Path, "read_bytes", lambda file: original(file) + b"#" * (file.name == "parts.py"))
    code.code_digest.cache_clear()
    assert code.code_digest() != first
    code.code_digest.cache_clear()


def test_what_statistics_do_not_depend_on_is_shared(family, tmp_path, scanned):
    merge(recipe(family, "ties", density=0.1), tmp_path / "first")
    scanned.clear()
    other = recipe(family, "ties", density=0.1, **{"lambda": 0.7, "weight": [1.0, 2.0, 3.0]})
    merge(other, tmp_path / "second", out_dtype="float32", workers=1)
    assert scanned == []


def test_other_weights_are_scanned_again(tmp_path, scanned):
    base, experts = draw(5, 1, {"w": (300, 300)})
    write_model(tmp_path / "base", base)
    write_model(tmp_path / "e0", experts[0])
    merge(recipe(tmp_path, "ties", 1, density=0.1), tmp_path / "first")
    scanned.clear()
    experts[0]["w"][299, 299] += 1
    write_model(tmp_path / "e0", experts[0])
    merge(recipe(tmp_path, "ties", 1, density=0.1), tmp_path / "second")
    assert scanned


@pytest.mark.parametrize(
    "damage", ["empty", "torn", "flipped", "text", "array", "directory", "pipe", "forged", "key", "key pipe"]
)
def test_a_damaged_cache_is_scanned_anew(family, tmp_path, own_cache, scanned, damage):
    asked = recipe(family, "ties", density=0.1)
    merge(asked, tmp_path / "first")
    (archive,) = own_cache.iterdir()
    content = bytearray(archive.read_bytes())
    if damage == "directory":
        archive.unlink()
        archive.mkdir()
    elif damage == "pipe":
        archive.unlink()
        os.mkfifo(archive)
    elif damage == "key":
        (own_cache.parent / "statistics.key").write_bytes(bytes(32))
    elif damage == "key pipe":
        (own_cache.parent / "statistics.key").unlink()
        os.mkfifo(own_cache.parent / "statistics.key")
    elif damage == "forged":
        # Well-formed, of other numbers, with the digest that anybody can compute.
        with np.load(io.BytesIO(content[32:])) as found:
            arrays = {name: np.full_like(found[name], np.nan) for name in found.files}
        made = io.BytesIO()
        np.savez(made, **arrays)
        archive.write_bytes(blake3(made.getvalue()).digest() + made.getvalue())
    elif damage == "array":
        with archive.open("wb") as handle:
            np.save(handle, np.zeros(3))
    else:
        content[200] ^= 0xFF
        changed = {"empty": b"", "torn": content[: len(content) // 2], "flipped": content, "text": b"statistics"}
        archive.write_bytes(changed[damage])
    scanned.clear()
    merge(asked, tmp_path / "second")
    assert scanned
    assert tree(tmp_path / "first") == tree(tmp_path / "second")


def test_nothing_is_left_behind_when_the_cache_cannot_be_written(family, tmp_path, own_cache, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.Path, "replace", full)
    cache.save(rlmerge.plan(recipe(family, "ties", density=0.1)), {"w": {"x": np.ones(3)}})
    assert list(own_cache.iterdir()) == []


def test_what_killed_runs_left_goes_after_a_day(family, tmp_path, own_cache):
    own_cache.mkdir(parents=True)
    for name, age in ((".old", 90_000), ("tmpold", 90_000), (".new", 100), ("tmpnew", 100)):
        if name.startswith("tmp"):
            (own_cache / name).mkdir()
            (own_cache / name / "x.npz").write_text("x")
        else:
            (own_cache / name).write_text("x")
        os.utime(own_cache / name, (time.time() - age, time.time() - age))
    merge(recipe(family, "ties", density=0.1), tmp_path / "out")
    assert {path.name for path in own_cache.iterdir()} >= {".new", "tmpnew"}
    assert not {".old", "tmpold"} & {path.name for path in own_cache.iterdir()}


def test_only_this_user_can_read_the_key(family, tmp_path, own_cache):
    merge(recipe(family, "ties", density=0.1), tmp_path / "out")
    assert (own_cache.parent / "statistics.key").stat().st_mode & 0o777 == 0o600


def test_without_a_home_there_is_no_cache(family, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(cache.Path, "home", staticmethod(homeless))
    merge(recipe(family, "ties", density=0.1), tmp_path / "out")


def test_statistics_of_a_users_own_formula_are_not_kept(family, tmp_path, own_cache, monkeypatch):
    """Its source may change from run to run, and nothing would tell."""
    methods.names()
    monkeypatch.setattr(methods, "_registry", dict(methods._registry))

    def size(xp, base, tau):
        return xp.abs(tau)

    @rlmerge.method(
        "clip",
        parameters=[Parameter("limit", 2.0, "Multiple of the mean magnitude.")],
        statistics=lambda experts, **_: ((Statistic("total", size, "sum"),),),
    )
    def clip(xp, base, tau, *, total, numel, limit):
        """Clip task vectors at a multiple of their mean magnitude."""
        bound = limit * total / numel
        return base + xp.sum(xp.maximum(xp.minimum(tau, bound), -bound))

    merge(recipe(family, "clip"), tmp_path / "out")
    assert not own_cache.exists() or list(own_cache.iterdir()) == []
