"""Consensus task arithmetic and EMR: by hand, against their steps, and at their limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rlmerge
from rlmerge import merge_state_dicts
from rlmerge.errors import RequestError
from support.examples import BASE, experts, whole_deltas
from support.interpret import interpret
from support.models import read_model, write_model

TAU = np.array([[4.0, 1.0, -2.0, 0.0], [3.0, -6.0, -1.0, 0.0], [0.0, -1.0, 5.0, 0.0]])


def merged(name, tau, **options):
    return interpret(name, np.zeros(tau.shape[1:]), tau, **options)


def test_a_consensus_by_hand():
    # Sums 7, −6, 2, 0. |τ| against half of |T − τ|: column 0: 4 > 1.5, 3 > 2, 0 > 3.5 no: two experts.
    # Column 1: 1 > 3.5 no, 6 > 0, 1 > 2.5 no: one. Column 2: 2 > 2 no, 1 > 1.5 no, 5 > 1.5: one.
    assert merged("consensus_ta", TAU, mask_lambda=0.5).tolist() == [7, 0, 0, 0]
    assert merged("consensus_ta", TAU, mask_lambda=0.5, agreeing=1).tolist() == [7, -6, 2, 0]
    assert merged("consensus_ta", TAU, mask_lambda=[0.5, 0.5, 10.0], agreeing=1).tolist() == [7, -6, 0, 0]


@given(whole_deltas(3), st.floats(0, 2), st.integers(0, 4))
def test_consensus_equals_its_masks(tau, factor, agreeing):
    total = tau.sum(0)
    counted = (np.abs(tau) > factor * np.abs(total - tau)).sum(0)
    expected = BASE + np.where(counted >= agreeing, total, 0)
    found = interpret("consensus_ta", BASE, experts(BASE, tau), mask_lambda=factor, agreeing=agreeing)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2.0**-48)


def test_agreement_of_nobody_is_task_arithmetic_and_of_more_than_all_the_base():
    assert merged("consensus_ta", TAU, agreeing=0).tolist() == TAU.sum(0).tolist()
    assert not merged("consensus_ta", TAU, agreeing=4).any()


def test_the_unified_change_by_hand():
    # Signs + − + and, of a sum of 0, −; the largest of that sign.
    assert merged("emr", TAU).tolist() == [4, -6, 5, 0]


def test_one_experts_mask_and_factor_by_hand():
    # Expert 1 has the elected sign in column 0 alone: Σ|τ| = 7 over Σ m|u| = 4.
    assert merged("emr", TAU, expert=1).tolist() == [7, 0, 0, 0]
    # Expert 2 in columns 0 and 1: 10 over 4 + 6.
    assert merged("emr", TAU, expert=2).tolist() == [4, -6, 0, 0]
    # Expert 3 in columns 1 and 2: 6 over 6 + 5.
    np.testing.assert_allclose(merged("emr", TAU, expert=3), [0, -36 / 11, 30 / 11, 0], rtol=1e-15)


@given(whole_deltas(1), st.integers(0, 1))
def test_an_expert_alone_comes_back(tau, expert):
    found = interpret("emr", BASE, experts(BASE, tau), expert=expert)
    np.testing.assert_allclose(found, BASE + tau[0], rtol=0, atol=2.0**-48)


@given(whole_deltas(3), st.permutations(range(3)))
def test_the_order_of_experts_does_not_matter(tau, order):
    for name in ("consensus_ta", "emr"):
        found = interpret(name, BASE, experts(BASE, tau[list(order)]))
        np.testing.assert_allclose(found, interpret(name, BASE, experts(BASE, tau)), rtol=0, atol=2.0**-48)


@pytest.mark.parametrize("expert", [4, 0.5])
def test_an_expert_that_is_not_there_is_refused(expert):
    state = {"w": np.ones(3, np.float32)}
    with pytest.raises(RequestError, match="expert must be 0 or the number of one of the 3 experts"):
        merge_state_dicts(state, [state] * 3, "emr", expert=expert)


def test_the_factor_is_taken_over_the_whole_model(tmp_path):
    """Half of the columns in one tensor, half in the other: the factors by hand of all four."""
    write_model(tmp_path / "base", {"a": np.zeros(2), "b": np.zeros(2)}, "float32")
    entries = []
    for k, row in enumerate(TAU):
        entries.append({"model": str(write_model(tmp_path / str(k), {"a": row[:2], "b": row[2:]}, "float32"))})
    recipe = {"merge_method": "emr", "base_model": str(tmp_path / "base"), "models": entries}
    result = rlmerge.merge({**recipe, "parameters": {"expert": 3}}, tmp_path / "out", cache=False)
    found = read_model(tmp_path / "out")
    np.testing.assert_allclose(np.concatenate([found["a"], found["b"]]), [0, -36 / 11, 30 / 11, 0], rtol=1e-6)
    (detail,) = result.details
    assert detail.label == f"rescaling for {tmp_path / '2'}"
    assert detail.value == pytest.approx(6 / 11)
