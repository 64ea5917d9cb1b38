"""SCF-RKL against an example worked by hand, its definition in float64, and the bounds it is published with."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rlmerge
from rlmerge import merge_state_dicts, methods
from rlmerge.errors import RequestError, RlmergeError
from rlmerge.kernels.jit import BLOCK
from rlmerge.merging import sizing
from rlmerge.methods.divergence import row_values
from support.examples import experts, fine_tunes, whole_deltas
from support.interpret import interpret, statistics_of, warnings_of
from support.measured import fishers, write_measured
from support.models import read_model, write_model

FLAT = np.repeat([[0.0], [1.0], [-2.0], [0.5]], 4, axis=1)
"""Rows of equal logits: q is 1/4 everywhere."""

CHANGE = np.array(
    [
        [4.0, 0, 0, 0],  # variance 4 - 1 = 3, so I = 4 · 3/2 = 6
        [2.0, -2, 0, 0],  # variance 2, so I = 2 · 1 twice
        [1.0, 1, 1, 1],  # moved as a whole: no divergence
        [0, 0, 0, -2.0],  # variance 1 - 1/4, so I = 2 · 3/8
    ]
)


def definition(base, expert, rho, importance="row", fisher=None):
    """W₀ + M ⊙ Δ from the formulas of the paper's outline, in float64."""
    delta = expert - base
    q = np.exp(base) / np.exp(base).sum(-1, keepdims=True)
    p = np.exp(expert) / np.exp(expert).sum(-1, keepdims=True)
    if importance == "row":
        value = np.abs(delta) * (q * np.log(q / p)).sum(-1, keepdims=True)
    elif importance == "element":
        value = np.where(delta == 0, 0, np.abs(q * np.log(q / p)))
    else:
        value = fisher * delta**2 / 2
    mask = (value >= np.quantile(value, 1 - rho)) & (value > 0)
    return np.where(mask, expert, base)


def fused(rho, **options):
    """Where the example's merge differs from the base."""
    return interpret("scf_rkl", FLAT, [FLAT + CHANGE], rho=rho, **options) != FLAT


@pytest.mark.parametrize(
    ("rho", "places"),
    [
        (0.0, []),
        (0.05, [(0, 0)]),  # of 16, the 0.95-quantile lies between the first and the second
        (0.1, [(0, 0), (1, 0), (1, 1)]),  # between the second and the third, which are equal
        (0.2, [(0, 0), (1, 0), (1, 1), (3, 3)]),  # exactly at the fourth
        (1.0, [(0, 0), (1, 0), (1, 1), (3, 3)]),  # what has no importance is never taken
    ],
)
def test_the_example_by_hand(rho, places):
    assert sorted(zip(*np.nonzero(fused(rho)), strict=True)) == places


def test_fused_weights_are_the_experts():
    merged = interpret("scf_rkl", FLAT, [FLAT + CHANGE], rho=0.2)
    np.testing.assert_array_equal(merged, np.where(merged != FLAT, FLAT + CHANGE, FLAT))


def drawn(seed, count=1, shape=(40, 50), size=0.1):
    rng = np.random.default_rng(seed)
    base = rng.standard_normal(shape)
    return base, [base + size * rng.standard_normal(shape) * (rng.random(shape) < 0.7) for _ in range(count)]


@pytest.mark.parametrize("rho", [0.01, 0.1, 0.37, 0.9, 1.0])
@pytest.mark.parametrize("importance", ["row", "element", "fisher"])
def test_equals_the_definition(rho, importance):
    base, (expert,) = drawn(0)
    fisher = np.random.default_rng(1).random(base.shape)
    options = {"importance": importance, "divergence": "exact", "rho": rho, "sensitivity": [fisher]}
    merged = interpret("scf_rkl", base, [expert], **options)
    np.testing.assert_array_equal(merged, definition(base, expert, rho, importance, fisher))


def test_forward_and_reverse_pick_the_same_weights_of_small_changes():
    base, (expert,) = drawn(2, size=1e-5)
    for importance in ("row", "element"):
        options = {"importance": importance, "divergence": "exact"}
        reverse, forward = (
            interpret("scf_rkl", base, [expert], direction=d, **options) for d in ("reverse", "forward")
        )
        assert (reverse != forward).mean() < 1e-3  # a weight or none of 2000 that lies at the quantile
    base, (expert,) = drawn(2, size=2.0)
    reverse, forward = (
        interpret("scf_rkl", base, [expert], direction=d, divergence="exact") for d in ("reverse", "forward")
    )
    assert (reverse != forward).mean() > 1e-2  # large changes do tell them apart


@pytest.mark.parametrize("importance", ["row", "element", "fisher"])
def test_sequential_is_one_fusion_after_the_other(importance):
    base, three = drawn(3, 3)
    fisher = np.random.default_rng(4).random((3, *base.shape))
    options = {"importance": importance, "divergence": "exact", "rho": 0.2}
    step = base
    for expert, measured in zip(three, fisher, strict=True):
        step = definition(step, expert, 0.2, importance, measured)
    np.testing.assert_array_equal(interpret("scf_rkl", base, three, sensitivity=fisher, **options), step)


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(5))
def test_sequential_steps_agree_to_the_bit_in_both_precisions(real, seed):
    base, three = drawn(seed, 3, (64, 64), 1e-3)
    base, three = base.astype(real), [x.astype(real) for x in three]
    step = base
    for expert in three:
        before, step = step, interpret("scf_rkl", step, [expert], real=real, rho=0.3)
    np.testing.assert_array_equal(interpret("scf_rkl", base, three, real=real, rho=0.3), step)
    # The third expert's rows were compared with the very weights that the second step left: a mask that is recomputed
    # in another precision would miss the weight at the threshold.
    values = statistics_of("scf_rkl", base, three, real=real, rho=0.3)
    old, new = before.astype(np.float64), three[2].astype(np.float64)
    np.testing.assert_array_equal(values["rows_2"], row_values(old, new, "row", "variance", "reverse"))


def test_argmax_takes_the_most_important_change_and_rho_in_all():
    base, three = drawn(6, 3)
    merged = interpret("scf_rkl", base, three, order="argmax", rho=0.2)
    q = np.exp(base) / np.exp(base).sum(-1, keepdims=True)
    delta = np.stack(three) - base
    variance = (q * delta**2).sum(-1, keepdims=True) - (q * delta).sum(-1, keepdims=True) ** 2
    value = np.abs(delta) * variance / 2
    best = value.max(0)
    choice = np.take_along_axis(np.stack(three), value.argmax(0)[None], 0)[0]
    np.testing.assert_array_equal(merged, np.where(best >= np.quantile(best, 0.8), choice, base))
    assert (merged != base).mean() == 0.2


@given(whole_deltas(2), st.sampled_from([0.1, 0.5, 1.0]), st.sampled_from(["row", "element", "fisher"]))
def test_orders_agree_on_one_expert_and_identical_experts_count_once(tau, rho, importance):
    options = {"rho": rho, "importance": importance}
    one = interpret("scf_rkl", FLAT, experts(FLAT, tau[:1]), **options)
    twice = [FLAT + tau[0], FLAT + tau[0]]
    np.testing.assert_array_equal(interpret("scf_rkl", FLAT, twice[:1], order="argmax", **options), one)
    np.testing.assert_array_equal(interpret("scf_rkl", FLAT, twice, order="argmax", **options), one)


@given(whole_deltas(1), st.floats(0, 1), st.sampled_from(["row", "element", "fisher"]))
def test_only_changes_are_fused_and_no_more_than_asked_but_for_ties(tau, rho, importance):
    merged = interpret("scf_rkl", FLAT, experts(FLAT, tau), rho=rho, importance=importance)
    taken = merged != FLAT
    np.testing.assert_array_equal(merged[taken], (FLAT + tau[0])[taken])
    values = statistics_of("scf_rkl", FLAT, experts(FLAT, tau), rho=rho, importance=importance)
    assert values["taken"].tolist() == [taken.sum()]


@pytest.mark.parametrize("shape", [(), (1,), (5, 1)])
def test_rows_of_one_entry_have_no_divergence(shape):
    base = np.ones(shape)
    merged = interpret("scf_rkl", base, [base + 1], rho=1.0)
    np.testing.assert_array_equal(merged, base)
    assert warnings_of("scf_rkl", base, [base + 1]) == ["no change has any importance, so the base is kept"]


def test_a_vector_is_one_row():
    base, (expert,) = drawn(7, shape=(200,))
    merged = interpret("scf_rkl", base, [expert], divergence="exact", rho=0.3)
    np.testing.assert_array_equal(merged, definition(base[None], expert[None], 0.3)[0])


def printed(base, merged_from, **options):
    """What a run reports."""
    values = statistics_of("scf_rkl", base, merged_from, **options)
    return {label: share.value for label, share in methods.get("scf_rkl").report(values).items()}


@pytest.mark.parametrize("order", ["sequential", "argmax"])
@pytest.mark.parametrize("rho", [0.05, 0.5])
def test_bounds_hold(order, rho):
    rng = np.random.default_rng(8)
    left, right = (np.linalg.qr(rng.standard_normal((60, 60)))[0] for _ in range(2))
    spectrum = np.concatenate([np.linspace(9, 8, 5), np.linspace(3, 0.1, 55)])
    base = (left * spectrum) @ right.T  # a gap of 5 behind the fifth singular value
    two = [base + 0.05 * rng.standard_normal(base.shape) for _ in range(2)]
    merged = interpret("scf_rkl", base, two, order=order, rho=rho)
    report = printed(base, two, order=order, rho=rho)
    bound = report["‖MΔ‖/‖W₀‖, a bound on the spectral shift"]
    old, new = np.linalg.svd(base), np.linalg.svd(merged)
    # Mirsky: ‖σ(W) − σ(W₀)‖ ≤ ‖W − W₀‖_F.
    assert bound == pytest.approx(np.linalg.norm(merged - base) / np.linalg.norm(base), rel=1e-12)
    assert 0 < np.linalg.norm(new.S - old.S) / np.linalg.norm(old.S) <= bound
    # Wedin: ‖sin Θ‖ ≤ ‖W − W₀‖₂ / gap for the first five singular vectors, left and right.
    gap = old.S[4] - new.S[5]
    for before, after in ((old.U, new.U), (old.Vh.T, new.Vh.T)):
        cosines = np.linalg.svd(before[:, :5].T @ after[:, :5], compute_uv=False)
        assert 0 < np.sqrt(1 - cosines.min() ** 2) <= np.linalg.norm(merged - base, 2) / gap
    untouched = report["untouched coordinates"]
    assert untouched == (merged == base).mean()
    assert untouched == pytest.approx(1 - rho, abs=1 / base.size) if order == "argmax" else untouched >= 1 - 2 * rho


def test_fisher_needs_what_was_measured():
    states = {"w": FLAT}, [{"w": FLAT + CHANGE}]
    with pytest.raises(RequestError, match="'scf_rkl' needs the sensitivity of every model here"):
        merge_state_dicts(*states, "scf_rkl", importance="fisher")
    assert warnings_of("scf_rkl", FLAT, [FLAT + CHANGE], importance="fisher") == [
        "no sensitivity was measured here, so importance is ½Δ²"
    ]


SHAPES = {"a": (301, 513), "b": (777,), "c": (20, 9000), "e": (3, 5, 64)}
DRAWN = {name: fine_tunes(index, 2, shape) for index, (name, shape) in enumerate(SHAPES.items())}
MEASURED = fishers(6, 2, SHAPES)


@pytest.fixture
def family(tmp_path):
    """Models in bfloat16 and their sensitivities on disk, and a recipe over them."""
    base = write_model(tmp_path / "base", {name: x[0] for name, x in DRAWN.items()}, "bfloat16")
    models = []
    for k in range(2):
        model = write_model(tmp_path / f"e{k}", {name: x[1][k] for name, x in DRAWN.items()}, "bfloat16")
        fisher = write_measured(tmp_path / f"f{k}", model, MEASURED[k])
        models.append({"model": str(model), "sensitivity": str(fisher)})
    return {"merge_method": "scf_rkl", "base_model": str(base), "models": models}


@pytest.mark.parametrize(
    "parameters",
    [{}, {"importance": "element", "direction": "forward"}, {"importance": "fisher"}, {"order": "argmax"}],
    ids=str,
)
def test_files_give_the_bits_of_the_formula_whatever_the_tiles_and_threads(family, tmp_path, monkeypatch, parameters):
    outs = []
    for number, (tile, workers) in enumerate([(1 << 20, 1), (BLOCK, 3)]):
        monkeypatch.setattr(sizing, "LARGEST_TILE", tile)
        recipe = family | {"parameters": parameters}
        result = rlmerge.merge(recipe, tmp_path / str(number), workers=workers, cache=False)
        outs.append(((result.out / "model.safetensors").read_bytes(), result.details))
    assert outs[0] == outs[1]
    merged = read_model(tmp_path / "0")
    for name, (base, two) in DRAWN.items():
        sensitivity = [measured[name] for measured in MEASURED]
        expected = interpret("scf_rkl", base, two, real=np.float32, sensitivity=sensitivity, **parameters)
        np.testing.assert_array_equal(merged[name].astype(np.float32), expected)


def test_sensitivities_of_the_base_are_taken_when_asked_for(family, tmp_path):
    fisher = write_measured(tmp_path / "f", tmp_path / "base", MEASURED[0])
    models = [entry | {"sensitivity": str(fisher)} for entry in family["models"]]
    recipe = family | {"models": models, "parameters": {"importance": "fisher"}}
    with pytest.raises(RlmergeError, match="was measured on another model"):
        rlmerge.plan(recipe)
    rlmerge.plan(recipe | {"parameters": {"importance": "fisher", "measured_on": "base"}})


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rho": 1.5}, "'rho' must be at most 1"),
        ({"rho": -0.1}, "'rho' must be at least 0"),
        ({"order": "x"}, "one of"),
    ],
)
def test_parameters_out_of_range(family, parameters, message):
    with pytest.raises(RlmergeError, match=message):
        rlmerge.plan(family | {"parameters": parameters})
