"""ResMerge against its steps with full decompositions, by hand, and at its limits."""

import numpy as np
import pytest

from rlmerge import merge_state_dicts
from rlmerge.errors import RequestError
from support.interpret import interpret


def changes(seed, count=3, shape=(8, 6), shared=0.0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, *shape)) + shared * rng.standard_normal(shape)


def merged(tau, **options):
    return interpret("resmerge", np.zeros(tau.shape[1:]), tau, **options)


def cosine(a, b):
    return np.sum(a * b) / (np.linalg.norm(a) * np.linalg.norm(b))


def reference(tau, rank=1, low=0.7, high=1.0, budget=0.2):
    """The paper's steps; the authors' additions of 1e-8 to lengths are below the tolerance."""
    heads = []
    for t in tau:
        u, s, v = np.linalg.svd(t, full_matrices=False)
        heads.append(u[:, :rank] * s[:rank] @ v[:rank])
    heads = np.stack(heads)
    rest = tau - heads
    pairs = [(i, j) for i in range(len(tau)) for j in range(i)]
    units = [r / np.linalg.norm(r) for r in rest]
    together = np.sum(units, axis=0) / np.linalg.norm(np.sum(units, axis=0))
    coherence = np.mean([cosine(u, together) for u in units])
    similar = np.mean([cosine(units[i], units[j]) for i, j in pairs])
    backbone = rest.mean(0)
    if coherence > 1 / np.sqrt(len(tau)):
        beta = high - (high - low) * 0.5 * ((similar + 1) / 2 + (coherence + 1) / 2)
        backbone = together * coherence**beta * np.mean([np.linalg.norm(r) for r in rest])
    agreement = np.mean([max(0, cosine(heads[i], heads[j])) for i, j in pairs])
    mean = heads.mean(0)
    return backbone + mean / np.linalg.norm(mean) * budget * agreement * np.linalg.norm(backbone)


@pytest.mark.parametrize("shared", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("rank", [1, 3])
def test_equals_its_steps(shared, rank):
    tau = changes(0, shared=shared)
    np.testing.assert_allclose(merged(tau, rank=rank), reference(tau, rank), rtol=0, atol=1e-6)


def test_residuals_that_do_not_agree_are_averaged_by_hand():
    """Heads 9 and 9 in one place; residuals 1 and 2, orthogonal, so c = 1/√2 is not above 1/√K."""
    tau = np.zeros((2, 3, 3))
    tau[:, 0, 0], tau[0, 1, 1], tau[1, 2, 2] = 9, 1, 2
    found = merged(tau)
    np.testing.assert_allclose(np.diag(found)[1:], [0.5, 1], rtol=1e-7)
    # Agreement 1: the head comes back at a fifth of the length of the residuals, √1.25.
    np.testing.assert_allclose(found[0, 0], 0.2 * np.sqrt(1.25), rtol=1e-7)


def test_equal_experts_keep_their_residual_and_a_share_of_the_head():
    tau = np.repeat(changes(1, count=1), 3, axis=0)
    u, s, v = np.linalg.svd(tau[0], full_matrices=False)
    head = s[0] * np.outer(u[:, 0], v[0])
    rest = tau[0] - head
    expected = rest + head / s[0] * 0.2 * np.linalg.norm(rest)
    np.testing.assert_allclose(merged(tau), expected, rtol=0, atol=1e-6)


def test_what_a_tensor_is_for_decides():
    tau = changes(2, shared=2.0)
    for kind in ("embedding", "head", "norm"):
        np.testing.assert_allclose(merged(tau, kind=kind), tau.mean(0), rtol=1e-13)
    np.testing.assert_array_equal(merged(tau, kind="attention q"), merged(tau))
    np.testing.assert_array_equal(merged(tau, kind="router"), merged(tau, beta_min=1.0))
    assert not np.allclose(merged(tau, kind="router"), merged(tau))


def test_order_vectors_and_nothing():
    tau = changes(3, shared=1.0)
    np.testing.assert_allclose(merged(tau[::-1]), merged(tau), rtol=0, atol=1e-9)
    np.testing.assert_allclose(merged(tau[:, 0]), tau[:, 0].mean(0), rtol=1e-13)
    assert not merged(np.zeros((2, 3, 4))).any()


def test_exponents_in_the_wrong_order_are_refused():
    with pytest.raises(RequestError, match=r"beta_min 1 is above beta_max 0\.5"):
        state = {"w": np.ones((3, 3), np.float32)}
        merge_state_dicts(state, [state, state], "resmerge", beta_min=1.0, beta_max=0.5)
