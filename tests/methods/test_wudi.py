"""WUDI against Adam in PyTorch and against the minimum; SWUDI against its integral, and both at their limits."""

import numpy as np
import pytest

from support.interpret import interpret


def changes(seed, count=3, shape=(6, 5)):
    return np.random.default_rng(seed).standard_normal((count, *shape))


def merged(name, tau, **options):
    return interpret(name, np.zeros(tau.shape[1:]), tau, **options)


def moments(tau):
    sizes = [np.sum(t**2) for t in tau]
    matrix = sum(t.T @ t / s for t, s in zip(tau, sizes, strict=True))
    pulled = sum(t @ t.T @ t / s for t, s in zip(tau, sizes, strict=True))
    return matrix, pulled


def test_equals_adam_in_pytorch():
    torch = pytest.importorskip("torch")
    tau = changes(0)
    stack = torch.tensor(tau)
    moved = torch.nn.Parameter(stack.sum(0))
    optimizer = torch.optim.Adam([moved], lr=0.01)
    sizes = stack.square().sum((1, 2))
    for _ in range(20):
        optimizer.zero_grad()
        loss = (((moved - stack) @ stack.transpose(1, 2)).square().sum((1, 2)) / sizes).sum()
        loss.backward()
        optimizer.step()
    found = merged("wudi", tau, steps=20, learning_rate=0.01)
    np.testing.assert_allclose(found, moved.detach().numpy(), rtol=0, atol=1e-10)


def test_the_first_step_is_the_learning_rate_by_hand():
    """Adam's first step is the sign of the gradient: 2(M C − D) with C = 2 and D = 3 + 4 of one weight, M = 7."""
    tau = np.zeros((2, 2, 2))
    tau[:, 0, 0] = 3, 4
    found = merged("wudi", tau, steps=1, learning_rate=0.5)
    np.testing.assert_allclose(found[0, 0], 6.5, rtol=1e-8)


def test_no_steps_are_task_arithmetic():
    tau = changes(1)
    np.testing.assert_allclose(merged("wudi", tau, steps=0), tau.sum(0), rtol=0, atol=1e-15)


@pytest.mark.parametrize("time", [0.5, 3.0])
@pytest.mark.parametrize("start", ["sum", "mean", "zero"])
def test_swudi_is_the_gradient_flow(time, start):
    """dM/dt = D − M C from M₀, solved with the exponential of −t C."""
    tau = changes(2)
    matrix, pulled = moments(tau)
    first = {"sum": tau.sum(0), "mean": tau.mean(0), "zero": 0 * tau[0]}[start]
    values, vectors = np.linalg.eigh(matrix)
    decay = vectors * np.exp(-time * values) @ vectors.T
    expected = first @ decay + pulled @ np.linalg.inv(matrix) @ (np.eye(5) - decay)
    found = merged("swudi", tau, time=time, start=start, rank_share=1.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_swudi_after_no_time_is_where_it_began():
    tau = changes(3)
    np.testing.assert_allclose(merged("swudi", tau, time=0), tau.sum(0), rtol=0, atol=1e-14)


def test_swudi_after_all_time_disturbs_least():
    tau = changes(4, shape=(12, 5))
    matrix, pulled = moments(tau)
    found = merged("swudi", tau, time=1e6, rank_share=1.0)
    np.testing.assert_allclose(found, pulled @ np.linalg.inv(matrix), rtol=0, atol=1e-9)


def test_directions_beyond_the_rank_keep_the_sum():
    tau = np.zeros((2, 4, 4))
    tau[0, 0, 0], tau[1, 0, 0], tau[0, 1, 1], tau[1, 1, 1] = 3, 3, 1, 1
    found = merged("swudi", tau, time=1e6, rank_share=0.25)
    # One direction of four is filtered: 3 and 3 meet at 3; 1 and 1 stay added up.
    np.testing.assert_allclose(np.diag(found), [3, 2, 0, 0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["wudi", "swudi"])
def test_an_expert_alone_comes_back(name):
    tau = changes(5, count=1)
    np.testing.assert_allclose(merged(name, tau), tau[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["wudi", "swudi"])
def test_experts_with_disjoint_row_spaces_add_up(name):
    turn = np.linalg.qr(changes(6, count=1, shape=(8, 8))[0])[0]
    tau = changes(7, count=2, shape=(3, 8))
    tau[0, :, :4], tau[1, :, 4:] = 0, 0
    tau = tau @ turn
    # Adam divides by the root of its gradient's square, which here is rounding: within steps times the rate.
    options = {"learning_rate": 1e-9, "steps": 3} if name == "wudi" else {}
    np.testing.assert_allclose(merged(name, tau, **options), tau.sum(0), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["wudi", "swudi"])
def test_order_others_and_nothing(name):
    tau = changes(8)
    np.testing.assert_allclose(merged(name, tau[::-1]), merged(name, tau), rtol=0, atol=1e-9)
    np.testing.assert_allclose(merged(name, tau[:, 0]), tau[:, 0].mean(0), rtol=1e-14)
    assert not merged(name, np.zeros((2, 3, 4))).any()


def test_the_head_is_averaged_by_swudi():
    tau = changes(9)
    np.testing.assert_allclose(merged("swudi", tau, kind="head"), tau.mean(0), rtol=1e-14)
