"""The family that reads inputs off the changes: by hand, against dense linear algebra, and its limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rlmerge
from rlmerge import merge_state_dicts
from support.interpret import interpret, report_of
from support.measured import write_measured
from support.models import read_model, write_model

METHODS = ["covariance", "actmat", "ace"]


def changes(seed, count=3, shape=(6, 5)):
    return np.random.default_rng(seed).standard_normal((count, *shape))


def merged(name, tau, **options):
    """The change of a merge onto a base of 0."""
    return interpret(name, np.zeros(tau.shape[1:]), tau, **options)


def reference(tau, rho=1.0, moments=None):
    """T + (Σ τ_k G_k − T S)(S + ρ I)⁻¹ by LAPACK."""
    moments = [t.T @ t for t in tau] if moments is None else moments
    moments = [g / np.mean(np.diag(g)) for g in moments]
    total, sums = tau.sum(0), np.sum(moments, axis=0)
    pulled = sum(t @ g for t, g in zip(tau, moments, strict=True))
    return total + (pulled - total @ sums) @ np.linalg.inv(sums + rho * np.eye(len(sums)))


def test_two_experts_on_the_same_input_by_hand():
    tau = np.array([[[2.0, 0], [0, 0]], [[0.0, 0], [4, 0]]])
    # The mean of the diagonal is half of its first entry, so G_k = diag(2, 0), and S = diag(4, 0). T = (2, 4) in the
    # first column: Σ τ_k G_k − T S = (4, 8) − (8, 16) = (−4, −8), over S + 1 = 5.
    np.testing.assert_allclose(merged("covariance", tau)[:, 0], [2 - 4 / 5, 4 - 8 / 5], rtol=1e-14)
    assert not merged("covariance", tau)[:, 1].any()


def test_actmat_by_hand():
    """Changes 2 and 4 of one weight, the others 0: (2·4 + 4·16) / (4 + 16) = 3.6."""
    tau = np.zeros((2, 2, 2))
    tau[:, 0, 0] = 2, 4
    np.testing.assert_allclose(merged("actmat", tau)[0, 0], 3.6, rtol=1e-5)  # the ridge is 1e-6 of the mean


@pytest.mark.parametrize("shape", [(6, 5), (2, 9), (9, 2), (5, 40)])
@pytest.mark.parametrize("rho", [0.01, 1.0, 30.0])
def test_equals_the_closed_form(shape, rho):
    """Both ways to solve it: as many inputs as there are, or as many outputs as all experts have together."""
    tau = changes(0, shape=shape)
    found = merged("covariance", tau, rho=rho, rank=0)
    np.testing.assert_allclose(found, reference(tau, rho), rtol=0, atol=1e-10)


@given(st.integers(0, 100), st.integers(1, 4))
def test_rank_reaches_the_changes_of_that_rank(seed, rank):
    rng = np.random.default_rng(seed)
    tau = rng.standard_normal((3, 20, rank)) @ rng.standard_normal((3, rank, 30))
    found = merged("covariance", tau, rank=rank)
    np.testing.assert_allclose(found, reference(tau), rtol=0, atol=1e-9)
    (share,) = report_of("covariance", np.zeros((20, 30)), tau, rank=rank).values()
    assert share.value == pytest.approx(0, abs=1e-12)


@given(st.integers(0, 100))
def test_row_by_row_and_whole_are_the_same(seed):
    """A stack of one matrix is taken whole."""
    tau = changes(seed, shape=(30, 20))
    whole, streamed = merged("covariance", tau[:, None], rank=6)[0], merged("covariance", tau, rank=6)
    np.testing.assert_allclose(streamed, whole, rtol=0, atol=1e-11)
    reports = [report_of("covariance", 0 * t[0], t, rank=6) for t in (tau, tau[:, None])]
    one, other = (next(iter(report.values())).value for report in reports)
    assert one == pytest.approx(other, rel=1e-9)


def test_what_is_beyond_the_rank_is_reported():
    """Singular values 3 and 1 of each expert: rank 1 leaves a tenth of the energy."""
    tau = np.zeros((2, 4, 6))
    tau[0, 0, 0], tau[0, 1, 1], tau[1, 2, 3], tau[1, 3, 2] = 3, 1, 3, 1
    (label, share) = next(iter(report_of("covariance", np.zeros((4, 6)), tau, rank=1).items()))
    assert label == "energy of the changes beyond the rank"
    # One power iteration leaves (1/3)^6 of the second direction in the first.
    assert share.value == pytest.approx(0.1, abs=0.02)
    assert merged("covariance", tau, rank=1)[1, 1] == pytest.approx(1, abs=0.1)  # changes themselves are not truncated


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_rho_of_infinity_is_task_arithmetic_bit_for_bit(real):
    tau = changes(1).astype(np.float32)
    base = np.random.default_rng(2).standard_normal(tau.shape[1:]).astype(np.float32)
    options = {"weight": [0.3, 1.0, 0.7], "lam": 0.6, "real": real}
    found = interpret("covariance", base, base + tau, rho=np.inf, **options)
    np.testing.assert_array_equal(found, interpret("task_arithmetic", base, base + tau, **options))
    near = interpret("covariance", base, base + tau, rho=1e12, **options)
    np.testing.assert_allclose(near, found, rtol=1e-6)


def test_rho_towards_0_is_actmat_of_changes_of_equal_size():
    tau = changes(3, shape=(30, 8))
    tau /= np.linalg.norm(tau, axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(
        merged("covariance", tau, rho=1e-9, rank=0), merged("actmat", tau, ridge=1e-9), atol=1e-7
    )


@pytest.mark.parametrize("rank", [0, 3])
def test_an_expert_alone_comes_back_exactly(rank):
    tau = changes(4, count=1)
    np.testing.assert_array_equal(merged("covariance", tau, rank=rank), tau[0])


def test_actmat_gives_an_expert_alone_back_up_to_its_ridge():
    tau = changes(4, count=1, shape=(30, 5))
    np.testing.assert_allclose(merged("actmat", tau)[:], tau[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["covariance", "actmat"])
@pytest.mark.parametrize("shape", [(9, 8), (3, 8)])
def test_experts_with_disjoint_row_spaces_add_up(name, shape):
    """Each works on inputs of its own, in a basis that is not the coordinates'."""
    turn = np.linalg.qr(changes(5, count=1, shape=(8, 8))[0])[0]
    tau = changes(6, count=2, shape=shape)
    tau[0, :, :4], tau[1, :, 4:] = 0, 0
    found = merged(name, tau @ turn, **({"rank": 0} if name == "covariance" else {"ridge": 1e-12}))
    np.testing.assert_allclose(found, tau.sum(0) @ turn, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
@given(st.permutations(range(3)))
def test_the_order_of_experts_does_not_matter(name, order):
    tau = changes(7)
    np.testing.assert_allclose(merged(name, tau[list(order)]), merged(name, tau), rtol=0, atol=1e-9)


@given(st.integers(0, 50), st.floats(-3, 3).filter(lambda x: abs(x) > 0.01))
def test_the_weight_of_an_expert_scales_its_change_and_not_its_inputs(seed, weight):
    tau = changes(seed)
    found = merged("covariance", tau, weight=[1.0, weight, 1.0])
    scaled = tau * np.array([1.0, weight, 1.0])[:, None, None]
    np.testing.assert_allclose(found, reference(scaled), rtol=0, atol=1e-9)
    np.testing.assert_allclose(found, reference(scaled, moments=[t.T @ t for t in tau]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["covariance", "actmat"])
def test_sizes_of_all_changes_scale_the_merge(name):
    tau = changes(8)
    np.testing.assert_allclose(merged(name, 1e-5 * tau), 1e-5 * merged(name, tau), rtol=1e-9)


def test_experts_that_changed_nothing_do_not_matter():
    tau = changes(9)
    with_nothing = np.concatenate([tau, np.zeros((1, *tau.shape[1:]))])
    np.testing.assert_array_equal(merged("covariance", with_nothing), merged("covariance", tau))
    for name in METHODS:
        assert not merged(name, np.zeros((2, 3, 4))).any()


@pytest.mark.parametrize("name", METHODS)
def test_vectors_and_embeddings_take_the_sum_or_the_average(name):
    tau = changes(10, shape=(6,))
    default = tau.sum(0) if name == "covariance" else tau.mean(0)
    np.testing.assert_allclose(merged(name, tau), default, rtol=1e-14)
    np.testing.assert_allclose(merged(name, tau, others="average"), tau.mean(0), rtol=1e-14)
    rows = changes(11)
    asked = merged(name, rows, kind="embedding", embeddings="others", others="sum")
    np.testing.assert_allclose(asked, rows.sum(0), rtol=1e-14)
    assert not np.allclose(merged(name, rows, kind="embedding", embeddings="merge"), asked)
    assert np.allclose(merged("covariance", rows, kind="embedding"), rows.sum(0))


@pytest.mark.parametrize("name", METHODS)
def test_a_stack_of_matrices_is_merged_matrix_by_matrix(name):
    tau = changes(12, shape=(2, 6, 5))
    # Stacks are taken whole, and a matrix by itself goes row by row where it can: the same up to rounding.
    np.testing.assert_allclose(merged(name, tau)[1], merged(name, tau[:, 1]), rtol=0, atol=1e-13)


def test_measured_inputs_take_the_place_of_the_estimate():
    tau, inputs = changes(13), changes(14, shape=(40, 5)) * [1, 3, 0.1, 2, 1]
    moments = [x.T @ x for x in inputs]
    np.testing.assert_allclose(merged("covariance", tau, gram=moments), reference(tau, moments=moments), atol=1e-10)


def test_an_expert_without_change_speaks_for_its_measured_inputs():
    """The base on general prompts: where only its inputs are, the others' changes are taken back."""
    tau = np.zeros((2, 2, 2))
    tau[0] = [[1.0, 1], [1, 1]]
    moments = [np.diag([1.0, 1e-9]), np.diag([1e-9, 1.0])]
    found = merged("covariance", tau, gram=moments, rho=1e-6)
    np.testing.assert_allclose(found, [[1, 0], [1, 0]], atol=1e-5)


def test_actmat_averages_what_is_too_wide():
    tau = changes(15)
    np.testing.assert_allclose(merged("actmat", tau, max_width=4), tau.mean(0), rtol=1e-14)


@pytest.mark.parametrize("shape", [(30, 5), (4, 9)])
def test_actmat_equals_the_closed_form(shape):
    tau = changes(16, shape=shape)
    moments = [t.T @ t for t in tau]
    expected = sum(t @ g for t, g in zip(tau, moments, strict=True)) @ np.linalg.pinv(np.sum(moments, axis=0))
    np.testing.assert_allclose(merged("actmat", tau, ridge=1e-10), expected, rtol=0, atol=1e-6)


def ace(tau, eps=1e-2, k_frac=0.3):
    """ACE as its code has it, with general inverses and full decompositions."""
    inputs = tau.shape[2]
    traces = np.array([np.trace(t.T @ t) for t in tau])
    logs = np.log(traces + 1e-12)
    flag = np.var(logs, ddof=1) / (np.mean(logs) ** 2 + 1e-12) > 0.3
    pulled, sums, plain, centred = 0, 0, [], []
    for t in tau:
        w = t - t.mean(0, keepdims=True)
        raw = w.T @ w
        trace = np.trace(raw) + 1e-12
        own, ridge = (raw / trace, eps / trace) if flag else (raw, eps)
        plain.append(own)
        centred.append(w)
        own = own + ridge * np.eye(inputs)
        pulled, sums = pulled + w @ own, sums + own
    prior = np.sum(plain, axis=0).mean(0, keepdims=True) / (traces.mean() + 1e-12 if flag else 1)
    found = pulled @ np.linalg.inv(sums + prior)
    if flag:
        mean = sums / len(tau)
        fused = found + sum(w @ (own - mean) for w, own in zip(centred, plain, strict=True))
        left, sigma, right = np.linalg.svd(fused, full_matrices=False)
        k = int(len(sigma) * k_frac)
        found = found + sigma[:k].mean() * left[:, :k] @ right[:k]
    return found, flag


@pytest.mark.parametrize(("scales", "uneven"), [((1.0, 1.1, 0.9), False), ((1.0, 0.01, 10.0), True)])
@pytest.mark.parametrize("shape", [(12, 10), (8, 15)])
def test_ace_equals_its_steps(scales, uneven, shape):
    tau = changes(17, shape=shape) * np.array(scales)[:, None, None]
    expected, flag = ace(tau)
    assert flag == uneven
    np.testing.assert_allclose(merged("ace", tau), expected, rtol=0, atol=1e-7 * np.abs(expected).max())


@pytest.fixture
def models(tmp_path):
    """A base and two experts of a layer, an embedding and a norm, with measured inputs of the layer."""
    rng = np.random.default_rng(18)
    shapes = {
        "model.embed_tokens.weight": (40, 24),
        "model.layers.0.mlp.up_proj.weight": (30, 24),
        "model.norm.weight": (24,),
    }
    base = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    write_model(tmp_path / "base", base, "float32")
    experts, grams = [], []
    for k in range(2):
        experts.append({name: w + 1e-3 * rng.standard_normal(w.shape, np.float32) for name, w in base.items()})
        write_model(tmp_path / f"e{k}", experts[-1], "float32")
        x = rng.standard_normal((50, 24), np.float32)
        grams.append(x.T @ x)
        fisher = {name: np.ones(shape) for name, shape in shapes.items()}
        write_measured(tmp_path / f"g{k}", tmp_path / f"e{k}", fisher, {"model.layers.0.mlp.up_proj.weight": grams[-1]})
    return tmp_path, base, experts, grams


def test_files_tell_an_embedding_from_a_layer(models):
    folder, base, experts, grams = models
    entries = [{"model": str(folder / f"e{k}")} for k in range(2)]
    recipe = {"merge_method": "covariance", "base_model": str(folder / "base"), "models": entries}
    result = rlmerge.merge(recipe, folder / "out")
    found = read_model(folder / "out")
    for name in base:
        kind = "embedding" if "embed" in name else ""
        expected = interpret("covariance", base[name], [e[name] for e in experts], real=np.float32, kind=kind)
        np.testing.assert_array_equal(found[name], expected)
    plain = merge_state_dicts(base, experts, "task_arithmetic")
    np.testing.assert_array_equal(found["model.embed_tokens.weight"], plain["model.embed_tokens.weight"])
    assert [detail.label for detail in result.details] == []  # 64 is all of the rank of 24

    truncated = rlmerge.merge({**recipe, "parameters": {"rank": 2}}, folder / "truncated")
    (detail,) = truncated.details
    assert detail.label == "energy of the changes beyond the rank"
    assert 0.5 < detail.value < 1  # noise has no leading directions
    assert list(detail.tensors) == ["model.layers.0.mlp.up_proj.weight"]

    for k, entry in enumerate(entries):
        entry["gram"] = str(folder / f"g{k}")
    rlmerge.merge(recipe, folder / "measured")
    name = "model.layers.0.mlp.up_proj.weight"
    expected = interpret("covariance", base[name], [e[name] for e in experts], real=np.float32, gram=grams)
    np.testing.assert_array_equal(read_model(folder / "measured")[name], expected)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A matrix of 28672 columns, as Llama-3-70B's down_proj has, and experts of rank 5 in it."""
    folder = tmp_path_factory.mktemp("wide")
    rng = np.random.default_rng(19)
    base = 0.02 * rng.standard_normal((160, 28672), np.float32)
    write_model(folder / "base", {"layer.weight": base}, "float32")
    for k in range(3):
        left, right = rng.standard_normal((160, 5), np.float32), rng.standard_normal((5, 28672), np.float32)
        write_model(folder / f"e{k}", {"layer.weight": base + 1e-3 * left @ right}, "float32")
    return folder


def test_a_wide_matrix_fits_the_default_budget_and_tiles_do_not_matter(wide, tmp_path):
    """Two groups of rows, and tiles of one row and of many: the same bytes."""
    entries = [{"model": str(wide / f"e{k}")} for k in range(3)]
    recipe = {"merge_method": "covariance", "base_model": str(wide / "base"), "models": entries}
    recipe["parameters"] = {"rank": 8}
    outs = []
    for number, options in enumerate([{"memory": 2**30}, {"memory": 150 * 2**20, "workers": 1}, {"workers": 2}]):
        assert rlmerge.plan(recipe, **options).peak_memory <= options.get("memory", 512 * 2**20)
        outs.append(rlmerge.merge(recipe, tmp_path / str(number), cache=False, **options).out)
    assert len({(out / "model.safetensors").read_bytes() for out in outs}) == 1
    recipe["parameters"] = {"rank": 64}
    assert rlmerge.plan(recipe, workers=1).peak_memory <= 512 * 2**20

    models = [read_model(wide / name)["layer.weight"] for name in ("base", "e0", "e1", "e2")]
    expected = interpret("covariance", models[0], models[1:], real=np.float32, rank=8)
    # One group of rows here, two there: sums of float64, then float32 of weights below 0.2.
    np.testing.assert_allclose(read_model(outs[0])["layer.weight"], expected, rtol=0, atol=2.0**-26)
