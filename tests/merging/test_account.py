"""What a merge says it did: counts by hand, survival, coefficients and the warnings that follow."""

import json
from functools import partial

import numpy as np
import pytest

import rlmerge
from rlmerge.checkpoint import OutputTensor
from rlmerge.kernels.dtypes import FLOAT32
from rlmerge.merging import Job
from rlmerge.merging.account import Account
from rlmerge.methods import Share
from support.models import write_model

BASE = np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 0.0, -2.0]])
ONE = np.array([[1.5, 2.0, 3.0, 5.0], [1.0, 1.0, 0.5, -2.0]])
TWO = np.array([[1.0, 2.5, 3.0, 3.0], [1.0, 1.0, 0.25, -2.0]])
"""ONE changes three entries: by 0.5 alone, by 1 against TWO's -1, and by 0.5 beside TWO's 0.25."""


def merge(folder, base, experts, dtype="float32", **more):
    write_model(folder / "base", {"w": base}, dtype)
    for k, expert in enumerate(experts):
        write_model(folder / f"e{k}", {"w": expert}, dtype)
    options = {key: more.pop(key) for key in ("rounding", "out_dtype", "seed") if key in more}
    recipe = {
        "merge_method": "task_arithmetic",
        "base_model": str(folder / "base"),
        "models": [{"model": str(folder / f"e{k}")} for k in range(len(experts))],
        "parameters": more,
    }
    return rlmerge.merge(recipe, folder / "out", **options)


def test_a_small_merge_by_hand(tmp_path):
    result = merge(tmp_path, BASE, [ONE, TWO], **{"lambda": 0.5})
    one, two = result.experts
    # merged - base: .25, .25, 0, 0 in the first row and 0, 0, .375, 0 in the second
    assert (one.changed, one.unique, one.survived, one.erased) == (3, 1, 2, 0)
    assert (two.changed, two.unique, two.survived, two.erased) == (3, 1, 2, 0)
    assert (result.changed, result.survived) == (4, 3)
    assert (one.requested, one.realised, two.requested, two.realised) == (0.5, 0.5, 0.5, 0.5)
    # Σ(merged − θ₀)τ / Στ²: ONE (.25·.5 + 0·1 + .375·.5) / (.25 + 1 + .25), TWO (.25·.5 + 0·−1 + .375·.25) / 1.3125
    assert one.projection == pytest.approx(0.3125 / 1.5)
    assert two.projection == pytest.approx(0.21875 / 1.3125)
    assert (one.survival, two.survival) == (2 / 3, 2 / 3)
    assert result.warnings == ()


STEP = 2.0**-8
"""The distance of bfloat16 numbers from 0.5 to 1; half of it above 0.5 rounds to the even 0.5."""


def steps(which):
    """Thirty entries of 0.5, of which every third, from ``which``, is one bfloat16 step larger."""
    w = np.full((3, 10), 0.5)
    w.flat[which::3] += STEP
    return w


def test_the_average_of_single_steps_survives_in_float32_alone(tmp_path):
    """Three experts that each moved other entries by one step of bfloat16, averaged: a third of a step is nothing."""
    base, experts = np.full((3, 10), 0.5), [steps(k) for k in range(3)]
    lost = merge(tmp_path / "a", base, experts, "bfloat16", **{"lambda": 1 / 3})
    assert [(e.changed, e.survived, e.erased, e.realised) for e in lost.experts] == [(10, 0, 10, 0.0)] * 3
    # 0.5 + STEP / 3 is off by up to 2^-25 in float32, which is 2.3e-5 of STEP / 3.
    assert [e.requested for e in lost.experts] == [pytest.approx(1 / 3, rel=2.3e-5)] * 3
    assert lost.warnings[0] == (
        f"rounding to bfloat16 erased 100% of the changes of {tmp_path / 'a' / 'e0'}; use --rounding stochastic, write "
        "--out-dtype float32, or raise the coefficient (lambda or weight)"
    )
    assert len(lost.warnings) == 3
    kept = merge(tmp_path / "b", base, experts, "bfloat16", out_dtype="float32", **{"lambda": 1 / 3})
    assert [(e.survived, e.erased) for e in kept.experts] == [(10, 0)] * 3
    assert [e.realised for e in kept.experts] == [pytest.approx(1 / 3, rel=2.3e-5)] * 3
    assert kept.warnings == ()


def test_stochastic_rounding_keeps_the_coefficient_on_average(tmp_path):
    base = np.full((300, 100), 0.5)
    expert = base + STEP
    result = merge(tmp_path, base, [expert], "bfloat16", rounding="stochastic", **{"lambda": 0.25})
    (found,) = result.experts
    # Of 30,000 changes a quarter survives; the standard deviation of that share is 0.0025.
    assert found.survival == pytest.approx(0.25, abs=5 * 0.0025)
    assert found.realised == pytest.approx(0.25, abs=5 * 0.0025)
    assert "write --out-dtype float32, or raise" in result.warnings[0]
    assert "--rounding" not in result.warnings[0]


def test_a_tenth_erased_is_the_limit(tmp_path):
    base = np.full((1, 40), 0.5)
    expert = base + 4 * STEP
    expert.flat[:4] = 0.5 + STEP
    assert merge(tmp_path / "a", base, [expert], "bfloat16", **{"lambda": 0.5}).warnings == ()
    expert.flat[4] = 0.5 + STEP
    (warning,) = merge(tmp_path / "b", base, [expert], "bfloat16", **{"lambda": 0.5}).warnings
    assert "erased 12% of the changes" in warning


def test_without_a_base_nothing_is_counted(tmp_path):
    write_model(tmp_path / "e0", {"w": ONE})
    write_model(tmp_path / "e1", {"w": TWO})
    models = [{"model": str(tmp_path / f"e{k}")} for k in range(2)]
    result = rlmerge.merge({"merge_method": "linear", "models": models}, tmp_path / "out")
    assert (result.experts, result.changed, result.survived) == ((), 0, 0)


def test_the_result_is_json(tmp_path):
    result = merge(tmp_path, BASE, [ONE, TWO])
    data = result.to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["experts"][0]["survival"] == result.experts[0].survival
    assert data["out"] == str(tmp_path / "out")
    assert (data["tensors"], data["parameters"], data["bytes_read"]) == (1, 8, 3 * 8 * 4)
    assert data["peak_memory"] is None or data["peak_memory"] > 0


def job_of(experts, name):
    return Job(OutputTensor(name, FLOAT32, (1,)), None, None, (), tuple(range(experts)))


def test_models_take_part_in_some_tensors_only():
    """The account goes by model: here tensor v is made of the second model alone."""
    account = Account(["a", "b"])
    both = Account.stats(np.arange(10.0)[None], np.array([4, 3, 2, 2, 1, 0, 3, 2, 2, 1]), (), {})
    alone = Account.stats(np.full((1, 5), 2.0), np.array([5, 5, 5, 5, 5, 0]), (), {})
    account.add(job_of(2, "w"), both)
    account.add(Job(OutputTensor("v", FLOAT32, (1,)), None, None, (), (1,)), alone)
    a, b = account.survival()
    assert (a.changed, a.survived, a.unique, a.erased) == (2, 2, 1, 0)
    assert (b.changed, b.survived, b.unique, b.erased) == (8, 7, 7, 1)
    assert (account.changed, account.survived) == (9, 8)
    assert a.requested == 0 / 2 and a.projection == 3 / 4
    assert b.requested == (5 + 2) / (7 + 2) and b.projection == (8 + 2) / (9 + 2)


def test_labels_with_other_braces_are_left_alone():
    account = Account(["org/{a}"])
    account.add(job_of(1, "w"), Account.stats(np.zeros((1, 0)), np.zeros(0), (), {"{0} of {7} {x}": Share(1.0, 2.0)}))
    assert account.details()[0].label == "org/{a} of {7} {x}"


def test_what_a_method_reports_adds_up_over_tensors_and_survives_the_journal():
    account = Account(["org/a"])
    job = partial(job_of, 1)
    for name, part in (("w", 1.0), ("v", 4.0), ("empty", 0.0)):
        whole = 0.0 if name == "empty" else 16.0
        report = {"won by {0}": Share(part, whole), "norm": Share(part, whole, 0.5)}
        stats = Account.stats(np.zeros((1, 0)), np.zeros(0, np.int64), (), report)
        account.add(job(name), json.loads(json.dumps(stats)))
    won, norm = account.details()
    assert (won.label, won.value, dict(won.tensors)) == ("won by org/a", 5 / 32, {"v": 4 / 16, "w": 1 / 16})
    assert (norm.value, norm.range) == ((5 / 32) ** 0.5, (0.25, 0.5))


def test_nothing_reported_is_nothing_shown():
    account = Account([])
    account.add(job_of(0, "w"), {})
    account.add(job_of(0, "v"), Account.stats(np.zeros((1, 0)), np.zeros(0, np.int64), (), {"share": Share(0.0, 0.0)}))
    (detail,) = account.details()
    assert (detail.value, detail.range) == (None, None)
