"""Parameters judge values, presets change defaults only, and formulas get the values they name."""

import pytest

from rlmerge.errors import RequestError
from rlmerge.methods import Method, Parameter, arguments

DENSITY = Parameter("density", 1.0, "Share kept.", low=0.0, high=1.0)
SCALE = Parameter("scale", 1.0, "Factor.", low=0.0, open_low=True)
RESCALE = Parameter("rescale", "none", "How.", choices=("none", "l1"))
SWITCH = Parameter("normalize", True, "Divide.")


@pytest.mark.parametrize(
    ("parameter", "value", "words"),
    [
        (DENSITY, -0.1, "at least 0"),
        (DENSITY, 1.5, "at most 1"),
        (DENSITY, "half", "must be a number"),
        (DENSITY, True, "must be a number"),
        (DENSITY, float("nan"), "must be a number"),
        (SCALE, 0.0, "above 0"),
        (RESCALE, "l2", "one of none, l1"),
        (SWITCH, 1.0, "true or false"),
    ],
)
def test_values_a_parameter_cannot_take(parameter, value, words):
    assert words in parameter.problem(value)


@pytest.mark.parametrize(
    ("parameter", "value"), [(DENSITY, 0), (DENSITY, 1.0), (SCALE, 1e-9), (RESCALE, "l1"), (SWITCH, False)]
)
def test_values_a_parameter_takes(parameter, value):
    assert parameter.problem(value) is None


def test_only_numbers_may_vary_from_tensor_to_tensor():
    assert [p.is_static for p in (DENSITY, SCALE, RESCALE, SWITCH)] == [False, False, True, True]


def test_the_argument_is_the_name_unless_python_reserves_it():
    assert DENSITY.argument == "density"
    assert Parameter("lambda", 1.0, "Factor.", argument="lam").argument == "lam"


def formula(xp, base, tau, *, density):
    return base + density * xp.sum(tau)


METHOD = Method("mine", formula, "Mine.", "none", "exact", (DENSITY, SCALE))


def test_parameters_are_found_by_name():
    assert METHOD.names == ("density", "scale")
    assert METHOD.parameter("density") is DENSITY
    with pytest.raises(KeyError, match="weight"):
        METHOD.parameter("weight")


def test_a_preset_shares_the_formula_and_changes_defaults():
    preset = METHOD.preset("half", defaults={"density": 0.5}, summary="Half.")
    assert (preset.name, preset.summary, preset.formula) == ("half", "Half.", formula)
    assert preset.parameter("density").default == 0.5
    assert preset.parameter("scale") is not None
    assert METHOD.parameter("density").default == 1.0
    with pytest.raises(KeyError, match="weight"):
        METHOD.preset("broken", defaults={"weight": 1.0})


def test_formulas_get_what_they_name():
    values = {"density": 0.5, "scale": 2.0}
    assert arguments(formula, values) == {"density": 0.5}
    assert arguments(lambda xp, base, tau, **everything: base, values) == values
    assert arguments(lambda xp, base, tau, *, extra=None: base, values) == {}


def test_a_formula_that_asks_for_the_unknown_is_told_what_there_is():
    with pytest.raises(RequestError, match=r"'formula' asks for 'density'") as caught:
        arguments(formula, {"scale": 2.0})
    assert "scale" in str(caught.value.hint)
