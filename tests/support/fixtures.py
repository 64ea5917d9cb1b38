"""A family of models on disk, written once, and a cache of its own for every test."""

import numpy as np
import pytest

from support.family import MATRICES, SHAPES, draw
from support.models import stored, write_model


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Statistics of test models stay out of the user's cache; the folder they go to."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "rlmerge" / "statistics"


@pytest.fixture(scope="session")
def family(tmp_path_factory):
    """The folder of ``base``, ``e0``, ``e1`` and ``e2`` in bfloat16, with an integer tensor."""
    return write_family(tmp_path_factory.mktemp("family"), SHAPES)


@pytest.fixture(scope="session")
def values():
    """What ``family`` holds, as arrays rounded to bfloat16: (base, experts)."""
    return rounded_values(SHAPES)


@pytest.fixture(scope="session")
def matrices(tmp_path_factory):
    """Like ``family``, but small enough to be decomposed often."""
    return write_family(tmp_path_factory.mktemp("matrices"), MATRICES)


def write_family(folder, shapes):
    base, experts = draw(1, shapes=shapes)
    steps = {"model.rotary.steps": np.arange(7)}
    write_model(folder / "base", base | steps, "bfloat16")
    for k, expert in enumerate(experts):
        write_model(folder / f"e{k}", expert | steps, "bfloat16")
    return folder


def rounded_values(shapes):
    """What such a family holds, as arrays rounded to bfloat16: (base, experts)."""
    base, experts = draw(1, shapes=shapes)
    rounded = [{name: stored(w, "bfloat16") for name, w in model.items()} for model in (base, *experts)]
    return rounded[0], rounded[1:]
