"""Methods as data, with parameters of every kind a recipe can meet, and a lookup over them."""

import pytest

from rlmerge.errors import RequestError, did_you_mean
from rlmerge.methods.method import Method, Parameter

WEIGHT = Parameter("weight", 1.0, "Coefficient of the expert.", per="expert")
DENSITY = Parameter("density", 1.0, "Share of entries kept.", per="expert", low=0, high=1, open_low=True)
LAMBDA = Parameter("lambda", 1.0, "Scale of the merged task vector.", argument="scale")
NORMALIZE = Parameter("normalize", True, "Divide by the sum of weights.")
RESCALE = Parameter("rescale", "inverse", "How kept entries are rescaled.", choices=("inverse", "l1", "none"))


def method(name, *parameters, **changes):
    return Method(
        name=name,
        formula=_formula,
        summary=f"What {name} does.",
        paper="arXiv 0000.00000",
        status="exact",
        parameters=parameters,
        **changes,
    )


def _formula(xp, base, tau):
    return base


METHODS = {
    m.name: m
    for m in (
        method("linear", WEIGHT, NORMALIZE, space="weights", base="ignored"),
        method("karcher", space="weights", base="ignored"),
        method("task_arithmetic", WEIGHT, LAMBDA),
        method("ties", WEIGHT, DENSITY, LAMBDA, NORMALIZE),
        method("dare_linear", WEIGHT, DENSITY, LAMBDA, RESCALE, compat={"rescale": "l1"}),
        method("slerp", Parameter("t", None, "0 is the base, 1 the other model."), max_experts=1),
        method("nuslerp", WEIGHT, base="optional", min_experts=2, max_experts=2),
        method("passthrough", Parameter("scale", 1.0, "Factor.", per="expert"), base="ignored", max_experts=1),
        method("plain"),
        method("measured", WEIGHT, inputs=("sensitivity",)),
    )
}


def find(name):
    if name not in METHODS:
        raise RequestError(f"unknown method '{name}'", hint=did_you_mean(name, METHODS))
    return METHODS[name]


@pytest.fixture
def lookup():
    return find


@pytest.fixture
def load(lookup):
    from rlmerge.recipe import load_recipe

    return lambda source: load_recipe(source, lookup=lookup)


@pytest.fixture
def load_all(lookup):
    from rlmerge.recipe import load_recipes

    return lambda source: load_recipes(source, lookup=lookup)


@pytest.fixture
def problems(load_all):
    """The problems of a recipe that must fail, as (where, what, hint)."""
    from rlmerge.errors import RecipeError

    def read(source):
        with pytest.raises(RecipeError) as caught:
            load_all(source)
        return [(p.where, p.what, p.hint) for p in caught.value.problems]

    return read


@pytest.fixture
def warned(load):
    """What a recipe that loads is warned of, without the places."""
    return lambda source: [text.split(": ", 1)[1] for text in load(source).warnings]
