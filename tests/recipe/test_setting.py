import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.recipe import Rule, Setting
from rlmerge.recipe.problems import Problems
from rlmerge.recipe.setting import read_setting
from rlmerge.recipe.tree import from_value


def read(value):
    problems = Problems()
    return read_setting(from_value(value, "p"), lambda node: node.value, problems), problems


def test_a_gradient_is_interpolated_between_its_points():
    gradient = Rule(None, (0.0, 1.0, 0.5))
    assert [gradient.at(p) for p in (0, 0.25, 0.5, 0.75, 1)] == [0, 0.5, 1, 0.75, 0.5]


def test_the_first_matching_filter_wins_and_star_means_all():
    setting, _ = read(
        [{"filter": "mlp", "value": 0.1}, {"filter": "mlp.up", "value": 0.2}, {"filter": "*", "value": 9}]
    )
    assert setting.at("layers.0.mlp.up.weight", 0) == 0.1
    assert setting.at("layers.0.attn.weight", 0) == 9
    assert setting.covers_all


def test_filters_may_hold_gradients_and_may_leave_tensors_out():
    setting, _ = read([{"filter": "attn", "value": [0.0, 1.0]}])
    assert setting.at("attn.q", 0.5) == 0.5
    assert setting.at("mlp.up", 0.5) is None
    assert not setting.covers_all


def test_otherwise_falls_through_tensor_by_tensor():
    inner, _ = read([{"filter": "mlp", "value": 0.1}])
    both = inner.otherwise(Setting.constant(0.7))
    assert (both.at("mlp", 0), both.at("attn", 0)) == (0.1, 0.7)
    assert Setting.constant(1.0).otherwise(Setting.constant(0.7)) == Setting.constant(1.0)


def test_only_is_the_value_that_never_varies():
    assert Setting.constant(True).only is True
    assert Setting((Rule(None, ("l1", "l1")),)).only == "l1"
    assert Setting((Rule(None, (0.0, 1.0)),)).only is None
    assert Setting((Rule("mlp", (1.0,)),)).only is None


@pytest.mark.parametrize(
    "value", [{"filter": "mlp", "value": [0.0, 1.0]}, {"value": 3.0}, {"filter": "*", "value": 1.0}]
)
def test_one_rule_alone_is_a_list_of_one(value):
    assert read(value)[0] == read([value])[0] is not None


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ([], "must not be empty"),
        ({"filter": "mlp"}, "must be a scalar"),
        ({"a": 1}, "must be a scalar"),
        ([1, {"filter": "mlp", "value": 2}], "plain values"),
        ([[1, 2], [3]], "plain values"),
        ([{"filter": "mlp"}], "needs a `value`"),
        ([{"filter": ["a"], "value": 1}], "must be text"),
        ([{"fliter": "mlp", "value": 1}], "unknown key 'fliter'"),
        ([{"value": [{"filter": "x", "value": 1}]}], "plain values"),
    ],
)
def test_malformed_settings_are_reported(value, what):
    setting, problems = read(value)
    assert setting is None
    assert what in problems.errors[0].what


numbers = st.floats(-10, 10)
gradients = st.lists(numbers, min_size=1, max_size=5).map(tuple)
patterns = st.one_of(st.none(), st.text("abc.", min_size=1, max_size=4))
settings = st.lists(st.builds(Rule, patterns, gradients), min_size=1, max_size=4).map(lambda r: Setting(tuple(r)))


@given(settings)
def test_plain_reads_back_equal(setting):
    assert read(setting.plain())[0] == setting


@given(gradients, st.floats(0, 1))
def test_a_gradient_stays_between_its_smallest_and_largest_value(values, position):
    # one rounding of each product and of the sum may step past an end by a few units in the last place
    assert min(values) - 1e-12 <= Rule(None, values).at(position) <= max(values) + 1e-12
