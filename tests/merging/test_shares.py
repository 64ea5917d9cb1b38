"""Merges by several processes: the bytes of one run, whoever does what when, and clear words where they disagree."""

import os
import sys
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rlmerge
from rlmerge.api import run_plan, seal_plan
from rlmerge.checkpoint.layout import ShardPlan
from rlmerge.checkpoint.shares import Share
from rlmerge.errors import RequestError
from rlmerge.merging.shares import run_share, seal_shares, shards_of
from rlmerge.progress import Quiet
from support.family import recipe, tree

run_module = sys.modules["rlmerge.merging.run"]  # the package has a function of that name
SIZE = 1_200_000
"""Bytes of a shard: the family makes five."""


def plan_of(family, out, method="ties", **options):
    parameters = {"count": 2, **({"density": 0.3} if method == "ties" else {})}
    return rlmerge.plan(recipe(family, method, **parameters), out, **{"shard_size": SIZE, "cache": False} | options)


def share(plan, out, text, **options):
    return run_share(replace(plan, options=replace(plan.options, **options)), out, Share.parse(text))


def seal(plan, out):
    return seal_plan(replace(plan, options=replace(plan.options, resume=True)), out)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture(scope="module")
def alone(family, tmp_path_factory):
    """The files of a merge by one process."""
    place = tmp_path_factory.mktemp("alone") / "out"
    run_plan(plan_of(family, place), place)
    return tree(place)


@pytest.mark.parametrize("order", [["1/2", "2/2"], ["2/3", "3/3", "1/3"], ["1/1"], [f"{k}/9" for k in range(9, 0, -1)]])
def test_the_bytes_are_those_of_one_run(family, out, alone, order):
    plan = plan_of(family, out)
    results = [share(plan, out, text) for text in order]
    assert not out.exists()
    assert sorted(name for result in results for name in result.shards) == [s.name for s in plan.shards]
    result = seal(plan, out)
    assert tree(out) == alone
    assert result.tensors == result.resumed == len(plan.jobs), "nothing is merged again"
    assert [entry.name for entry in out.parent.iterdir()] == ["out"], "nothing is left beside it"
    assert rlmerge.verify(out).ok


def test_a_threshold_over_the_model_is_that_of_the_model(family, tmp_path):
    asked = recipe(family, "ties", count=2, density=0.2, scope="global")
    for name in ("shared", "single"):
        plan = rlmerge.plan(asked, tmp_path / name, shard_size=SIZE)
        if name == "single":
            run_plan(plan, tmp_path / name)
            continue
        for text in ("1/2", "2/2"):
            share(plan, tmp_path / name, text)
        seal(plan, tmp_path / name)
    assert tree(tmp_path / "shared") == tree(tmp_path / "single")


def test_sealing_reads_no_input_again(family, out, monkeypatch):
    plan = plan_of(family, out)
    share(plan, out, "1/1")
    monkeypatch.setattr(run_module.Statistics, "scan_model", lambda self: pytest.fail("the models are read again"))
    seal(plan, out)


def test_a_missing_share_is_named(family, out, alone):
    plan = plan_of(family, out)
    share(plan, out, "1/3"), share(plan, out, "3/3")
    with pytest.raises(RequestError, match="shards are not finished: those of share 2/3") as error:
        seal(plan, out)
    assert "--shards 2/3 --resume" in str(error.value) and not out.exists()
    share(plan, out, "2/3", resume=True)
    seal(plan, out)
    assert tree(out) == alone


def test_nothing_to_seal(family, out):
    with pytest.raises(RequestError, match="nothing to seal"):
        seal(plan_of(family, out), out)
    assert list(out.parent.iterdir()) == []


def test_an_interrupted_share_goes_on(family, out, alone, monkeypatch):
    """The share stops after its first shard; the tensors of that are not merged again."""
    plan = plan_of(family, out)
    mine = shards_of(plan, Share.parse("2/2"))
    assert len(mine) > 1
    whole, left = run_module.merge_shard, [1]

    def merge_shard(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(run_module, "merge_shard", merge_shard)
    with pytest.raises(KeyboardInterrupt):
        share(plan, out, "2/2")
    monkeypatch.undo()
    share(plan, out, "1/2")
    with pytest.raises(RequestError, match="those of share 2/2"):
        seal(plan, out)
    with pytest.raises(RequestError, match="an interrupted run left"):
        share(plan, out, "2/2")
    result = share(plan, out, "2/2", resume=True)
    assert 0 < result.resumed < result.tensors
    seal(plan, out)
    assert tree(out) == alone


def test_two_processes_with_one_share(family, out):
    """The second is told at once; the first ends as if alone."""
    plan, began, go = plan_of(family, out), threading.Event(), threading.Event()

    class Waiting(Quiet):
        def start(self, *_):
            began.set()
            assert go.wait(20)

    first = threading.Thread(target=run_share, args=(plan, out, Share.parse("1/2"), Waiting()))
    first.start()
    try:
        assert began.wait(20)
        with pytest.raises(RequestError, match="share 1/2 is being merged by another process"):
            share(plan, out, "1/2")
        with pytest.raises(RequestError, match="another process is writing there"):
            seal(plan, out)
        with pytest.raises(RequestError, match="another process is writing there"):
            run_plan(plan, out)
        share(plan, out, "2/2")
    finally:
        go.set()
        first.join()
    seal(plan, out)
    assert rlmerge.verify(out).ok


@pytest.mark.parametrize("other", [{"seed": 1}, {"method": "ram"}, {"out_dtype": "float32"}])
def test_shares_of_different_merges(family, out, other):
    share(plan_of(family, out), out, "1/2")
    with pytest.raises(RequestError, match="share 1/2 there is of a merge with another recipe, input, option"):
        share(plan_of(family, out, **other), out, "2/2")
    with pytest.raises(RequestError, match="share 1/2 there is of a merge with another recipe, input, option"):
        seal(plan_of(family, out, **other), out)


def test_shares_of_different_numbers(family, out):
    plan = plan_of(family, out)
    share(plan, out, "1/2")
    with pytest.raises(RequestError, match="shared by 2 processes, not by 3"):
        share(plan, out, "1/3")


def test_a_run_alone_does_not_lose_what_processes_shared(family, out, alone):
    plan = plan_of(family, out)
    share(plan, out, "1/2")
    for resume in (False, True):
        with pytest.raises(RequestError, match="a merge shared by 2 processes has its work there"):
            run_plan(replace(plan, options=replace(plan.options, resume=resume)), out)
    run_plan(replace(plan, options=replace(plan.options, force=True)), out)
    assert tree(out) == alone


def test_a_share_does_not_lose_what_a_run_alone_left(family, out, monkeypatch):
    plan = plan_of(family, out)
    monkeypatch.setattr(run_module, "write_side_files", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_plan(plan, out)
    with pytest.raises(RequestError, match="an interrupted run without --shards"):
        share(plan, out, "1/2", resume=True)


def test_bytes_that_changed_on_disk_are_merged_again(family, out, alone):
    """The seal reads what every process wrote; what is not as its journal says is made anew."""
    plan = plan_of(family, out)
    share(plan, out, "1/2"), share(plan, out, "2/2")
    damaged = next((out.parent / ".out.partial" / "share-1-of-2" / "model").iterdir())
    with damaged.open("r+b") as handle:
        handle.seek(-3, os.SEEK_END)
        handle.write(b"\x7f\x7f\x7f")
    assert seal(plan, out).resumed < len(plan.jobs)
    assert tree(out) == alone


def test_a_killed_seal_is_repeated(family, out, alone, monkeypatch):
    """It is killed with some shards moved and others not."""
    plan = plan_of(family, out)
    share(plan, out, "1/2"), share(plan, out, "2/2")
    rename, left = type(out).rename, [2]

    def renamed(self, target):
        if self.suffix == ".safetensors":
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(type(out), "rename", renamed)
    with pytest.raises(KeyboardInterrupt):
        seal(plan, out)
    monkeypatch.undo()
    seal(plan, out)
    assert tree(out) == alone


def test_a_seal_killed_after_it_gathered_is_repeated(family, out, alone, monkeypatch):
    plan = plan_of(family, out)
    share(plan, out, "1/1")
    monkeypatch.setattr(run_module, "write_side_files", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        seal(plan, out)
    monkeypatch.undo()
    seal(plan, out)
    assert tree(out) == alone


def test_a_link_in_place_of_a_shares_files_is_not_followed(family, out, tmp_path):
    plan = plan_of(family, out)
    share(plan, out, "1/1")
    model = out.parent / ".out.partial" / "share-1-of-1" / "model"
    model.rename(tmp_path / "elsewhere")
    model.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RequestError, match="those of share 1/1"):
        seal(plan, out)


def test_more_processes_than_shards(family, out):
    plan = plan_of(family, out)
    result = share(plan, out, "9/9")
    assert (result.shards, result.tensors, result.bytes_written) == ((), 0, 0)


COSTS = st.lists(st.integers(1, 10**12), min_size=1, max_size=40)


@given(COSTS, st.integers(1, 12))
def test_every_shard_has_one_owner_and_loads_are_even(costs, count):
    pairs = [(ShardPlan(f"{k:05d}", ()), cost) for k, cost in enumerate(costs)]
    cost_of = {shard.name: cost for shard, cost in pairs}
    shares = [Share(count, number).of(pairs) for number in range(1, count + 1)]
    assert sorted(shard.name for mine in shares for shard in mine) == sorted(cost_of)
    loads = [sum(cost_of[shard.name] for shard in mine) for mine in shares]
    # Greedy placement: before its last piece came, the fullest was the emptiest.
    assert max(loads) <= min(loads) + max(costs)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "1/99999", "-1/3", "1/3/4", ""])
def test_what_is_no_share(text):
    with pytest.raises(ValueError, match="share"):
        Share.parse(text)


def test_seal_of_a_plan_that_does_not_resume_reports_the_work_there(family, out):
    plan = plan_of(family, out)
    share(plan, out, "1/1")
    with pytest.raises(RequestError, match="an interrupted run left"):
        seal_shares(plan, out)
