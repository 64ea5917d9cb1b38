"""SAR-Merging against an example worked by hand, a loop over coordinates, and the limits it is known to have."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import rlmerge
from rlmerge import methods
from rlmerge.errors import RlmergeError
from rlmerge.kernels.jit import BLOCK
from rlmerge.merging import sizing
from support.examples import BASE, TAU, at, experts, fine_tunes, whole_deltas
from support.interpret import interpret, statistics_of, warnings_of
from support.measured import fishers, write_measured
from support.models import read_model, write_model

CHOICES = {
    "active": st.sampled_from(["epsilon", "bits"]),
    "arbitration": st.sampled_from(["winner", "fisher_mean", "winner_on_sign_conflict"]),
    "score": st.sampled_from(["fisher", "fisher_tau", "fisher_tau2"]),
    "normalize": st.booleans(),
    "density": st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0]),
    "rescale": st.sampled_from(["l1", "l2", "inverse", "none"]),
}
PLAIN = {"density": 1.0, "rescale": "none"}
"""Step 1 alone."""

measurements = arrays(np.int64, (3, 4, 4), elements=st.integers(0, 4)).map(lambda x: x.astype(np.float64))


def moved(tau, **options):
    """The merged task vector."""
    return interpret("sar_merging", BASE, experts(BASE, np.asarray(tau)), **options) - BASE


def arbitrated(tau, fisher, active, arbitration, score, normalize, epsilon):
    """Step 1 coordinate by coordinate."""
    count = len(tau)
    left = tau.copy()
    means = fisher.reshape(count, -1).mean(1)
    relative = [f / m if normalize and m > 0 else f for f, m in zip(fisher, means, strict=True)]
    power = {"fisher": 0, "fisher_tau": 1, "fisher_tau2": 2}[score]
    for place in np.ndindex(tau.shape[1:]):
        values = tau[(slice(None), *place)]
        rivals = [k for k in range(count) if abs(values[k]) > (epsilon if active == "epsilon" else 0)]
        signs = {np.sign(values[k]) for k in rivals}
        if len(rivals) < 2 or (arbitration == "winner_on_sign_conflict" and len(signs) == 1):
            continue
        if arbitration == "fisher_mean":
            weights = [fisher[k][place] for k in rivals]
            # Divided by the largest first, as the formula does: rounding breaks the ties of the trim that follows.
            weights = [w / max(weights) for w in weights] if any(weights) else [1.0] * len(rivals)
            total = sum(weights)
            shares = {k: w / total for k, w in zip(rivals, weights, strict=True)}
            left[(slice(None), *place)] = [shares.get(k, 0.0) * values[k] for k in range(count)]
        else:
            # Multiplied in the formula's order: exact ties are common here, and rounding breaks them.
            sizes = [np.prod([relative[k][place], *[abs(values[k])] * power]) for k in range(count)]
            scores = [(sizes[k], abs(values[k]), -k) for k in rivals]
            winner = -max(scores)[2]
            left[(slice(None), *place)] = [values[k] if k == winner else 0.0 for k in range(count)]
    return left


def finished(left, density, rescale):
    """Steps 2 and 3 and the sum."""
    total = np.zeros(left.shape[1:])
    for claim in left:
        sizes = np.sort(np.abs(claim[claim != 0]))[::-1]
        keep = max(1, int(density * len(sizes))) if density > 0 and len(sizes) else 0
        kept = np.where((np.abs(claim) >= sizes[keep - 1]) & (claim != 0), claim, 0.0) if keep else 0 * claim
        power = {"l1": 1, "l2": 2}.get(rescale)
        factor = 1.0
        if power and kept.any():
            factor = ((np.abs(claim) ** power).sum() / (np.abs(kept) ** power).sum()) ** (1 / power)
        elif rescale == "inverse" and density > 0:
            factor = 1 / density
        total += factor * kept
    return total


# Five coordinates are changed by two or three experts; signs are opposed at three of them.
WON = [
    at(r0c0=4, r1c0=3, r3c3=1),  # (3, 3): 1 and -1 are equally large, so the first expert wins
    at(r0c2=5, r1c3=-2, r2c1=4),
    at(r1c1=6),
]


def test_without_sensitivities_the_largest_change_wins():
    np.testing.assert_array_equal(moved(TAU, **PLAIN), sum(WON))
    (warning,) = warnings_of("sar_merging", BASE, experts(BASE, TAU))
    assert warning == "no sensitivities are given, so in a conflict the largest change wins"


def test_the_example_by_hand():
    # Of 3, 3 and 1 changes left, 2/3, 1/3 and all are kept; what stays gets back the norms 8, 11 and 6.
    found = moved(TAU, density=[2 / 3, 1 / 3, 1.0])
    expected = 8 / 7 * at(r0c0=4, r1c0=3) + 11 / 5 * at(r0c2=5) + at(r1c1=6)
    np.testing.assert_allclose(found, expected, rtol=1e-14)  # a few roundings of float64


@pytest.mark.parametrize(
    ("rescale", "factors"),
    [("none", (1, 1)), ("inverse", (3 / 2, 3)), ("l2", (np.sqrt(26 / 25), np.sqrt(45 / 25)))],
)
def test_other_ways_to_rescale(rescale, factors):
    found = moved(TAU, density=[2 / 3, 1 / 3, 1.0], rescale=rescale)
    expected = factors[0] * at(r0c0=4, r1c0=3) + factors[1] * at(r0c2=5) + at(r1c1=6)
    np.testing.assert_allclose(found, expected, rtol=1e-14)  # a few roundings of float64


@pytest.mark.parametrize(
    ("fisher", "score", "winner"),
    [
        (3, "fisher", -2),
        (3, "fisher_tau", -2),  # 1·4 < 3·2
        (3, "fisher_tau2", 4),  # 1·16 > 3·4
        (1.5, "fisher", -2),
        (1.5, "fisher_tau", 4),
    ],
)
def test_the_score_decides_between_4_and_minus_2(fisher, score, winner):
    measured = np.ones((3, 4, 4))
    measured[1, 0, 0] = fisher
    assert moved(TAU, **PLAIN, sensitivity=measured, score=score, normalize=False)[0, 0] == winner


def test_fisher_mean_weighs_the_active_changes():
    measured = np.ones((3, 4, 4))
    measured[:, 2, 1] = 1, 2, 1
    measured[:, 1, 0] = 0, 0, 9
    found = moved(TAU, **PLAIN, sensitivity=measured, arbitration="fisher_mean")
    assert found[2, 1] == (2 + 2 * 4 - 3) / 4
    assert found[1, 0] == (3 + 1) / 2  # both are insensitive; the third is sensitive but did not change it
    assert found[1, 1] == 6


def test_only_opposed_signs_may_be_arbitrated():
    found = moved(TAU, **PLAIN, arbitration="winner_on_sign_conflict")
    assert (found[0, 0], found[2, 1], found[3, 3]) == (4, 4, 1)
    assert (found[1, 0], found[1, 3]) == (3 + 1, -1 - 2)


def test_changes_up_to_epsilon_do_not_compete_and_lose_where_others_do():
    found = moved(TAU, **PLAIN, epsilon=1.0)
    assert found[1, 0] == 3 + 1  # the 1 is not active, so the 3 has no rival
    assert found[3, 3] == 1 - 1
    measured = np.ones((3, 4, 4))
    measured[0, 2, 1] = 1e6
    # Of 2, 4 and -3 the first does not count, however sensitive it is, and is zeroed with the loser.
    assert moved(TAU, **PLAIN, epsilon=2.5, sensitivity=measured)[2, 1] == 4


@given(whole_deltas(3), measurements, st.fixed_dictionaries(CHOICES), st.sampled_from([0.0, 1.0]))
def test_equals_the_loop(tau, fisher, choices, epsilon):
    density, rescale = choices["density"], choices["rescale"]
    step = {name: choices[name] for name in ("active", "arbitration", "score", "normalize")}
    expected = finished(arbitrated(tau, fisher, **step, epsilon=epsilon), density, rescale)
    found = moved(tau, sensitivity=fisher, epsilon=epsilon, lam=0.5, **choices)
    # Shares and factors are quotients in both; values reach 12 · 16.
    np.testing.assert_allclose(found, 0.5 * expected, rtol=1e-12, atol=1e-12)


@given(whole_deltas(3), measurements, st.fixed_dictionaries(CHOICES))
def test_limit_disjoint_supports_leave_nothing_to_arbitrate(tau, fisher, choices):
    owner = np.arange(16).reshape(4, 4) % 3
    apart = np.stack([np.where(owner == k, delta, 0.0) for k, delta in enumerate(tau)])
    values = statistics_of("sar_merging", BASE, experts(BASE, apart), sensitivity=fisher, **choices)
    assert not values["contests"].any()
    full = choices | {"density": 1.0}
    np.testing.assert_allclose(moved(apart, sensitivity=fisher, **full), apart.sum(0), rtol=1e-14)  # factors of 1 ± ulp


@given(whole_deltas(3), measurements, st.sampled_from(["winner", "winner_on_sign_conflict", "fisher_mean"]))
def test_limit_density_1_makes_steps_2_and_3_idle(tau, fisher, arbitration):
    step_1 = arbitrated(tau, fisher, "bits", arbitration, "fisher_tau2", True, 0.0).sum(0)
    for rescale in ("l1", "l2", "inverse", "none"):
        options = {"arbitration": arbitration, "active": "bits", "density": 1.0, "rescale": rescale}
        np.testing.assert_allclose(moved(tau, sensitivity=fisher, **options), step_1, rtol=1e-12, atol=1e-12)


@given(whole_deltas(3, limit=9), measurements, st.integers(0, 2), st.sampled_from(["winner", "fisher_mean"]))
def test_limit_an_infinitely_sensitive_expert_wins_what_it_changed(tau, fisher, sure, arbitration):
    fisher = fisher + 1
    fisher[sure] *= 1e12
    found = moved(tau, **PLAIN, sensitivity=fisher, arbitration=arbitration, normalize=False)
    mine = tau[sure] != 0
    np.testing.assert_allclose(found[mine], tau[sure][mine], rtol=1e-10)  # the others' shares are 1e-12 of the mean's


def test_limit_one_infinitely_sensitive_weight_wins_with_normalised_sensitivities():
    # S is at most the number of entries: all of a tensor's sensitivity in one of its 10 000 weights.
    rng = np.random.default_rng(0)
    tau = rng.standard_normal((2, 100, 100))
    fisher = np.ones((2, 100, 100))
    fisher[1, 7, 7], tau[:, 7, 7] = 1e30, (2.0, -0.1)
    merged = interpret("sar_merging", np.zeros((100, 100)), tau, **PLAIN, sensitivity=fisher)
    assert merged[7, 7] == -0.1


@given(whole_deltas(3), st.sampled_from(["fisher", "fisher_tau", "fisher_tau2"]), st.floats(1e-30, 1e30))
def test_limit_equal_sensitivities_let_the_larger_change_win(tau, score, amount):
    fisher = np.full(tau.shape, amount)
    np.testing.assert_array_equal(moved(tau, **PLAIN, sensitivity=fisher, score=score), moved(tau, **PLAIN))


@given(whole_deltas(3), measurements, st.lists(st.sampled_from([2.0**-40, 1.0, 2.0**30]), min_size=3, max_size=3))
def test_the_scale_of_an_experts_sensitivities_does_not_matter(tau, fisher, factors):
    scaled = fisher * np.reshape(factors, (3, 1, 1))
    np.testing.assert_array_equal(moved(tau, sensitivity=scaled), moved(tau, sensitivity=fisher))


@given(whole_deltas(1), measurements, st.fixed_dictionaries(CHOICES))
def test_one_expert_has_no_conflict_and_identical_ones_count_once(tau, fisher, choices):
    # A threefold sum of thirds rounds once or twice.
    close = {"rtol": 1e-14, "atol": 1e-14}
    full = choices | {"density": 1.0}
    np.testing.assert_allclose(moved(tau, sensitivity=fisher[:1], **full), tau[0], **close)
    if choices["arbitration"] != "winner_on_sign_conflict":
        three = moved(np.repeat(tau, 3, axis=0), sensitivity=fisher, **full)
        np.testing.assert_allclose(three, tau[0], **close)


@given(whole_deltas(3), st.sampled_from([0.2, 0.5, 0.8]))
def test_l1_gives_back_the_norm_that_arbitration_left(tau, density):
    apart = np.stack([np.where(np.arange(16).reshape(4, 4) % 3 == k, delta, 0.0) for k, delta in enumerate(tau)])
    np.testing.assert_allclose(np.abs(moved(apart, density=density)).sum(), np.abs(apart).sum(), rtol=1e-13)


def test_density_0_keeps_the_base_and_says_so():
    np.testing.assert_array_equal(moved(TAU, density=0.0), 0)
    assert "density 0 keeps no change of an expert" in warnings_of("sar_merging", BASE, experts(BASE, TAU), density=0.0)


def test_an_expert_that_is_sensitive_nowhere_loses():
    fisher = np.stack([np.zeros((4, 4)), np.full((4, 4), 1e-8), np.zeros((4, 4))])
    assert moved(TAU, **PLAIN, sensitivity=fisher)[0, 0] == -2
    (warning,) = warnings_of("sar_merging", BASE, experts(BASE, TAU), sensitivity=fisher)
    assert warning.startswith("the sensitivities of an expert are all 0")


def test_a_tensor_of_one_weight():
    merged = interpret("sar_merging", [1.0], [[2.0], [-3.0]], sensitivity=[[1.0], [1.0]])
    assert merged == [-3.0]


def test_reports_what_was_arbitrated_won_dropped_and_restored():
    method = methods.get("sar_merging")
    values = statistics_of("sar_merging", BASE, experts(BASE, TAU), density=[2 / 3, 1 / 3, 1.0])
    report = {label.format("a", "b", "c"): (share.part, share.whole) for label, share in method.report(values).items()}
    assert report == {
        "coordinates arbitrated": (5, 16),
        "of these, sign conflicts resolved": (3, 5),
        "of these, won by a": (3, 5),
        "of these, won by b": (2, 5),
        "of these, won by c": (0, 5),
        "L1 mass dropped": (1 + 6, 25),
        "L1 mass restored": (pytest.approx(7), 25),
    }


SHAPES = {"a": (301, 513), "b": (777,), "c": (40, 4096)}
DRAWN = {name: fine_tunes(index, 3, shape) for index, (name, shape) in enumerate(SHAPES.items())}
MEASURED = fishers(5, 3, SHAPES)


@pytest.fixture
def family(tmp_path, monkeypatch):
    """Models in bfloat16 and their sensitivities on disk, and a recipe over them; the user's cache is left alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    base = write_model(tmp_path / "base", {name: drawn[0] for name, drawn in DRAWN.items()}, "bfloat16")
    models = []
    for k in range(3):
        model = write_model(tmp_path / f"e{k}", {name: drawn[1][k] for name, drawn in DRAWN.items()}, "bfloat16")
        fisher = write_measured(tmp_path / f"f{k}", model, MEASURED[k])
        models.append({"model": str(model), "sensitivity": str(fisher)})
    return {"merge_method": "sar_merging", "base_model": str(base), "models": models}


def test_files_give_the_bits_of_the_formula_whatever_the_tiles_and_threads(family, tmp_path, monkeypatch):
    outs = []
    for number, (tile, workers) in enumerate([(1 << 20, 1), (BLOCK, 3)]):
        monkeypatch.setattr(sizing, "LARGEST_TILE", tile)
        result = rlmerge.merge(family, tmp_path / str(number), workers=workers, out_dtype="float32", cache=False)
        outs.append(((result.out / "model.safetensors").read_bytes(), result.details))
    assert outs[0] == outs[1]
    merged = read_model(tmp_path / "0")
    for name, (base, models) in DRAWN.items():
        sensitivity = [measured[name] for measured in MEASURED]
        expected = interpret("sar_merging", base, models, real=np.float32, sensitivity=sensitivity)
        np.testing.assert_array_equal(merged[name], expected)


def test_the_result_says_who_won(family, tmp_path):
    result = rlmerge.merge(family, tmp_path / "out", cache=False)
    details = {detail.label: detail for detail in result.details}
    shares = [details[f"of these, won by {model['model']}"].value for model in family["models"]]
    assert sum(shares) == pytest.approx(1)
    assert set(details["coordinates arbitrated"].tensors) == set(SHAPES)
    assert "| of these, won by e1 |" in (tmp_path / "out" / "README.md").read_text()


def test_sensitivities_matter_and_are_in_lock_file_and_cache_key(family, tmp_path):
    first = rlmerge.merge(family, tmp_path / "first")
    write_measured(tmp_path / "f1", tmp_path / "e1", MEASURED[0])
    second = rlmerge.merge(family, tmp_path / "second")
    weights = [(result.out / "model.safetensors").read_bytes() for result in (first, second)]
    assert weights[0] != weights[1]
    locks = [(result.out / "rlmerge.lock.yaml").read_text() for result in (first, second)]
    assert str(tmp_path / "f1") in locks[0] and locks[0] != locks[1]


def test_a_negative_sensitivity_stops_the_merge_and_leaves_nothing(family, tmp_path):
    bad = MEASURED[1]["c"].copy()
    bad[2, 5] = -1e-20
    write_measured(tmp_path / "f1", tmp_path / "e1", MEASURED[1] | {"c": bad})
    with pytest.raises(RlmergeError, match=rf"f1.*: c: 1 sensitivities are negative.* is at {2 * 4096 + 5}") as caught:
        rlmerge.merge(family, tmp_path / "out")
    assert caught.value.exit_code == 2
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"epsilon": -1e-5}, "'epsilon' must be at least 0"),
        ({"density": 1.2}, "'density' must be at most 1"),
        ({"arbitration": "vote"}, "'arbitration' must be one of winner, fisher_mean, winner_on_sign_conflict"),
    ],
)
def test_parameters_out_of_range(family, tmp_path, parameters, message):
    with pytest.raises(RlmergeError, match=message):
        rlmerge.plan(family | {"parameters": parameters})
