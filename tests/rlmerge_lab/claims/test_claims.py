"""Claims on hand-made studies whose answers are known by construction (tests/support/studies.py)."""

import json
import math

import pytest

from rlmerge_lab.claims import judge
from rlmerge_lab.claims.figure import Outcome, Side
from rlmerge_lab.claims.verdict import UNTESTED
from support.studies import ARMS, DRIFT, HIGH, LOW, SPLIT, study

KEYS = {
    "sparser", "orthogonal", "farther-apart", "conflict-norm", "conflict-share", "forgets-less",
    "interference-less", "interference-more", "flat-basin",
    "better-averaging", "worse-averaging", "better-tuned", "worse-tuned", "better-matched-norm", "worse-matched-norm",
    "better-unmatched", "dilution", "dilution-explains", "scale-ranks", "rounding", "bf16-weights",
    "sft-high-lr", "sft-long", "on-policy", "shrinking-advantage", "negatives",
    "constant-advantage", "kl-penalty",
    "entrywise", "rotations", "own-arithmetic", "own-tsv", "own-regmean", "own-actmat", "own-vocabulary", "own-layers",
    "own-drift", "distil-sooner", "distil-overtakes", "ram-averaging", "ram-tuned", "sar-merging", "scf-rkl",
    "repetition-amplified", "repetition-scf", "repetition-rl",
}  # fmt: skip


def verdicts(rows):
    return {verdict.key: verdict for verdict in judge(rows).verdicts}


def test_every_claim_is_judged_once():
    found = [verdict.key for verdict in judge(study()).verdicts]
    assert set(found) == KEYS and len(found) == len(KEYS)


def test_a_paired_difference_comes_out_as_worked_by_hand():
    found = verdicts(study(gains={("rl", "linear", "default"): lambda seed: 0.5 + SPLIT[seed]}))
    (figure,) = found["better-averaging"].decides
    # The seeds drift by up to 0.07, and pairing takes that out.
    assert figure.bounds == (pytest.approx(LOW, abs=1e-7), pytest.approx(HIGH, abs=1e-7))
    assert figure.a == pytest.approx(0.53 + sum(DRIFT) / 5) and figure.b == pytest.approx(0.5 + sum(DRIFT) / 5)
    assert found["better-averaging"].outcome is Outcome.SUPPORTED
    assert found["worse-averaging"].outcome is Outcome.NOT_SUPPORTED


def test_denominators_stand_beside_and_one_that_says_the_same_is_left_out():
    beside = {f.name: f for f in verdicts(study())["better-averaging"].beside}
    assert "retention, averaging, rl − sft" in beside and "pass@1 of the merge, averaging, rl − sft" in beside
    assert not any("degradation" in name for name in beside)
    rows = study(gains={("rl", "linear", "default"): lambda seed: 0.6})
    for row in rows["merges"]:
        row["degradation"] *= 2
    assert any("degradation" in f.name for f in verdicts(rows)["better-averaging"].beside)


def test_each_method_stands_beside_the_mean_over_methods():
    gains = {("rl", method, "tuned"): lambda seed: 0.7 for method in ("ties", "ram")}
    found = verdicts(study(gains=gains))["better-tuned"]
    # Two of six methods are 0.2 better.
    assert found.decides[0].differences == pytest.approx([0.4 / 6] * 5)
    each = {f.name: f.differences[0] for f in found.beside if f.name.startswith("gain kept, ")}
    assert each["gain kept, ties, tuned, rl − sft"] == pytest.approx(0.2)
    assert each["gain kept, linear, tuned, rl − sft"] == pytest.approx(0.0)


def test_equal_norm_is_read_off_the_sweeps():
    rows = study()
    for row in rows["merges"]:
        row["norm"] = {"rl": 0.009, "sft": 0.016}.get(row["arm"])
    for row in rows["sweep"]:
        if row["arm"] == "rl":
            row["gain_kept"] += 0.1
    (figure,) = verdicts(rows)["better-matched-norm"].decides
    # √(0.009 · 0.016) = 0.012, between the sweep's 0.0075 and 0.015: both curves rise from λ 0.25 to 0.5 there,
    # SFT's to 0.2 + (0.0045/0.0075) · 0.2 = 0.32, RL's to 0.42.
    assert figure.b == pytest.approx(0.32 + sum(DRIFT) / 5) and figure.differences == pytest.approx([0.1] * 5)
    for row in rows["sweep"]:
        row["norm"] *= 0.1
    assert "nothing to compare" in verdicts(rows)["better-matched-norm"].decides[0].empty


def test_geometry_by_construction():
    found = verdicts(study())
    # 0.40 against 0.35 unchanged; 1e-4 against 2e-4; cosines of 0.02 within 0.1; equal conflict shares.
    assert found["sparser"].outcome == "supported" and found["sparser"].decides[0].differences[0] == pytest.approx(0.05)
    assert found["orthogonal"].outcome == "supported"
    assert found["farther-apart"].outcome == "not supported"
    assert found["conflict-norm"].outcome == "supported"
    assert found["conflict-share"].outcome == "not supported"
    assert found["bf16-weights"].outcome == "supported"
    norms = {f.name: f for f in found["sparser"].controls}
    assert norms["‖τ‖/‖θ₀‖, rl − sft"].differences == pytest.approx([-0.005] * 5)
    # 0.02 of cosine in units of 0.001.
    assert found["orthogonal"].beside[0].a == pytest.approx(20 + 100 * sum(DRIFT) / 5)


def test_dilution_explains_a_gap_that_a_tuned_coefficient_closes():
    gains = {
        ("rl", "linear", "default"): lambda seed: 0.3,
        ("rl", "task_arithmetic", "tuned"): lambda seed: 0.8,
        ("sft", "task_arithmetic", "tuned"): lambda seed: 0.8,
    }
    found = verdicts(study(gains=gains))
    assert found["dilution"].outcome == "supported" and found["dilution-explains"].outcome == "supported"
    closing = found["dilution-explains"].decides[0]
    # RL is 0.2 behind under averaging and equal once tuned.
    assert closing.differences == pytest.approx([0.2] * 5)
    left = dict(gains) | {("rl", "task_arithmetic", "tuned"): lambda seed: 0.6}
    assert verdicts(study(gains=left))["dilution-explains"].outcome == "not supported"


def test_no_gap_has_nothing_to_explain():
    found = verdicts(study())["dilution-explains"]
    assert found.outcome == "undecided here" and "no gap to explain" in found.reason


def test_scale_explains_the_ranking_when_methods_agree_at_one_norm():
    gains = {("rl", m, "default"): (lambda seed, k=k: 0.2 * k) for k, m in enumerate(("linear", "ties", "ram"))}
    methods = ("linear", "ties", "ram")
    found = verdicts(study(gains=gains, methods=methods))["scale-ranks"]
    # 0, 0.2, 0.4 have standard deviation 0.2; at equal norm all are 0.5.
    assert found.decides[0].differences == pytest.approx([0.2] * 5) and found.outcome == "supported"
    # The sweep gives 0.4 at norm 0.015, and the drift of a seed is in both.
    assert found.beside[0].differences == pytest.approx([0.2 - 0.4] * 5)


def test_factors_need_both_links():
    better = {("rl", "linear", "default"): lambda seed: 0.6}
    rows = study(gains=better)
    # Negatives: better merges, yet no less conflict than without them.
    assert verdicts(rows)["negatives"].outcome == "not supported"
    for row in rows["geometry"]:
        if row["arm"] == "rl":
            row["conflict_share"] -= 0.1
    assert verdicts(rows)["negatives"].outcome == "supported"


def test_float32_output_beside_bfloat16():
    rows = study()
    exact = [
        row | {"rule": "float32", "of": "default", "gain_kept": row["gain_kept"] + 0.1 + 0.001 * row["seed"]}
        for row in rows["merges"]
        if (row["arm"], row["method"], row["rule"], row["set"]) == ("rl", "linear", "default", "all")
    ]
    found = verdicts(rows | {"merges": rows["merges"] + exact})["rounding"]
    assert found.outcome == "supported"
    assert found.decides[0].differences == pytest.approx([0.1, 0.101, 0.102, 0.103, 0.104])
    assert verdicts(rows)["rounding"].outcome == "undecided here"


def test_the_rival_is_chosen_on_dev():
    rows = study(gains={("rl", "ties", "tuned"): lambda seed: 0.9, ("rl", "sar_merging", "tuned"): lambda seed: 0.7})
    for row in rows["merges"]:
        if row["method"] == "ties":
            row["dev"] = 0.1
        if row["method"] == "ram":
            row["dev"] = 0.6
    found = verdicts(rows)["sar-merging"]
    assert found.decides[0].name == "gain kept, rl, tuned, sar_merging − ram" and found.outcome == "supported"
    assert any(f.name.endswith("sar_merging − ties") and f.outcome == "not supported" for f in found.beside)


def test_sar_is_judged_with_its_fisher_information_where_it_was_measured():
    methods = ("linear", "task_arithmetic", "sar_merging", "sar_merging:fisher")
    gains = {("rl", "sar_merging:fisher", "tuned"): lambda seed: 0.9, ("rl", "sar_merging", "tuned"): lambda seed: 0.8}
    figure = verdicts(study(methods=methods, gains=gains))["sar-merging"].decides[0]
    # Its own variant without it is no rival, though it is the second best.
    assert figure.name.startswith("gain kept, rl, tuned, sar_merging:fisher − ")
    assert not figure.name.endswith("− sar_merging")


def test_repetition():
    found = verdicts(study())
    # Merges repeat 0.04 on average against the experts' 0.01; SCF-RKL 0.02 against 0.06; both arms alike.
    assert found["repetition-amplified"].decides[0].differences == pytest.approx([0.03] * 5)
    assert found["repetition-scf"].decides[0].differences == pytest.approx([-0.04] * 5)
    assert found["repetition-scf"].outcome == "supported" and found["repetition-rl"].outcome == "not supported"


def test_models_that_never_repeat_leave_repetition_undecided():
    rows = study()
    silent = [row | {"length_cap_repetition": 0.0} for row in rows["health"]]
    found = verdicts(rows | {"health": silent})
    for key in ("repetition-amplified", "repetition-scf", "repetition-rl"):
        assert found[key].outcome == "undecided here" and "both sides are 0" in found[key].reason
    shown = judge(rows | {"health": silent}).to_dict()
    assert not any(verdict["group"] == "health" for verdict in shown["verdicts"])
    assert [row["claim"] for row in shown["untested"] if "both sides are 0" in row["reason"]] == [
        found[key].claim for key in ("repetition-amplified", "repetition-scf", "repetition-rl")
    ]


@pytest.mark.parametrize("seeds", [0, 1, 2])
def test_too_few_seeds_decide_nothing(seeds):
    judgement = judge(study(seeds))
    assert {v.outcome for v in judgement.verdicts} == {"undecided here"} and judgement.comparisons == 0
    if seeds:
        reasons = {v.key: v.reason for v in judgement.verdicts}
        assert f"{seeds} seed" in reasons["sparser"] and "a verdict needs 3" in reasons["sparser"]


@pytest.mark.parametrize("arm", ARMS)
def test_a_missing_arm_leaves_its_claims_undecided_and_the_others_as_they_were(arm):
    found = verdicts(study(arms=tuple(a for a in ARMS if a != arm)))
    whole = verdicts(study())
    touched = {key for key, v in whole.items() if any(arm in f.name.replace(",", " ").split() for f in v.decides)}
    assert touched
    for key in touched:
        alone = len(whole[key].decides) == 1
        assert found[key].outcome != "supported" and (not alone or found[key].outcome == "undecided here")
    for key in KEYS - touched:
        assert found[key].outcome == whole[key].outcome


@pytest.mark.parametrize("part", ["geometry", "merges", "health", "sweep", "landscape", "experts", "bases"])
@pytest.mark.parametrize("gone", [[], None])
def test_a_missing_part_is_no_error(part, gone):
    rows = judge(study(**{part: gone})).to_dict()
    assert len(rows["verdicts"]) + len(rows["untested"]) == len(KEYS) + len(UNTESTED)
    assert len(rows["verdicts"]) < len(judge(study()).to_dict()["verdicts"])


def test_nan_null_and_infinity_count_as_missing_and_are_never_passed_on():
    rows = study()
    for number, row in enumerate(rows["merges"]):
        row["gain_kept"] = (math.nan, None, math.inf)[number % 3]
    for row in rows["experts"]:
        row["unchanged"] = math.nan
    found = judge(rows)
    assert {v.outcome for v in found.verdicts if v.group in ("methods", "dilution")} == {"undecided here"}
    assert verdicts(rows)["sparser"].outcome == "undecided here"
    json.dumps(found.to_dict(), allow_nan=False)


def test_one_seed_that_failed_leaves_the_others_paired():
    rows = study(gains={("rl", "linear", "default"): lambda seed: 0.5 + SPLIT[seed]})
    for row in rows["merges"]:
        if row["seed"] == 4 and row["arm"] == "sft":
            row["gain_kept"] = None
    figure = verdicts(rows)["better-averaging"].decides[0]
    assert figure.differences == pytest.approx(SPLIT[:4])


def test_controls_are_all_claimed_to_be_near_zero():
    """Reports read their outcome as held equal or not."""
    assert {f.side for v in judge(study()).verdicts for f in v.controls} == {Side.NEAR}


def test_as_data():
    rows = judge(study()).to_dict()
    json.dumps(rows, allow_nan=False)
    assert rows["schema"] == "rlmerge.lab.verdicts/2" and rows["comparisons"] > 10
    assert {v["verdict"] for v in rows["verdicts"]} <= {"supported", "not supported", "undecided here"}
    for verdict in rows["verdicts"]:
        assert verdict["control"] and verdict["cannot_say"] and verdict["reason"] and verdict["source"]


def test_the_landscape_is_read_at_named_points():
    rows = study()
    # 0.2 is lost at α = 1 and 0.1 · (0.5² + 1²)/2 = 0.0625 around the center; RL loses 0.05 more of each.
    pictures = []
    for seed in range(3):
        for arm, more in (("rl", 0.05), ("sft", 0.0)):
            picture = {"seed": seed, "arm": arm, "task": "make", "center": "make", "direction": "steps"}
            axis = [-0.5, 0.0, 0.5, 1.0]
            score = [
                [0.7 - 0.2 * a * a - 0.1 * b * b - (more + seed / 1000) * ((a, b) != (0.0, 0.0)) for b in axis]
                for a in axis
            ]
            pictures.append(picture | {"alphas": axis, "betas": axis, "score": score})
    found = verdicts(rows | {"landscape": pictures})
    (along,), (around,) = found["interference-less"].decides, found["flat-basin"].decides
    assert along.differences == pytest.approx([0.05] * 3) and along.b == pytest.approx(0.201)
    assert around.differences == pytest.approx([0.05] * 3) and around.b == pytest.approx(0.0635)
    assert found["interference-less"].outcome == "not supported"
    assert found["interference-more"].outcome == "supported" and found["flat-basin"].outcome == "supported"
    for picture in pictures:
        picture["alphas"] = [-0.5, 0.1, 0.5, 1.0]
        picture["score"][0][0] = None
    blind = verdicts(rows | {"landscape": pictures})
    assert blind["flat-basin"].outcome == "undecided here" and "nothing to compare" in blind["flat-basin"].reason
