"""Merges of files: the bytes do not depend on tiles, threads, memory or caches, and are those of the formula."""

import ml_dtypes
import numpy as np
import pytest

import rlmerge
from rlmerge import methods
from rlmerge.kernels import random
from rlmerge.kernels.jit import BLOCK
from rlmerge.merging import on_numpy as on_numpy_module
from rlmerge.merging import sizing
from rlmerge.merging.on_numpy import NumpyMerger
from support.family import MATRICES, merge, recipe, tree
from support.fixtures import rounded_values
from support.interpret import interpret
from support.models import read_model

BF16 = ml_dtypes.bfloat16

SETTINGS = {
    "ties": [
        {"density": [0.2, 0.5, 0.05]},
        {"density": 0.1, "scope": "global", "weight": [1.0, 0.5, -0.2]},
    ],
    "dare_linear": [{"density": 0.5, "rescale": "l1"}],
    "dare_ties": [{"density": 0.3}],
    "ram": [{}, {"active": "bits"}, {"active": "strict", "percentile": 60}],
    "ram_percentile": [{"percentile": 50}],
    "nuslerp": [{}, {"nuslerp_flatten": False}],
    "nearswap": [{"t": 0.001}],
    "karcher": [{"base": False}],  # a base that is not listed would be averaged in
    "pcb": [{}, {"scope": "tensor"}],
    "sar_merging": [{"density": 0.5}, {"arbitration": "fisher_mean", "active": "bits", "rescale": "l2"}],
    "scf_rkl": [{}, {"order": "argmax"}, {"importance": "element"}],
    "fisher": [],  # these two need measured inputs
    "regmean": [],
    "wudi": [{"steps": 4}],
}


def merges_models_alone(name):
    """Whether a method does without inputs that must be measured first."""
    method = methods.get(name)
    return not method.needs_inputs({p.argument: p.default for p in method.parameters if p.is_static})


CASES = [
    (name, options) for name in methods.names() if merges_models_alone(name) for options in SETTINGS.get(name, [{}])
]
CASES += [("ram", {"active": "bits", "rounding": "stochastic"}), ("linear", {"base": False})]
IDS = ["-".join([name, *options]) for name, options in CASES]
MACHINES = [
    {"workers": 1, "memory": 64 * 10**6, "tile": 1 << 20},
    {"workers": 2, "memory": 512 * 10**6, "tile": BLOCK},
    {"workers": 4, "memory": 2 * 10**9, "tile": 3 * BLOCK},
]


def split(name, options):
    """(recipe parameters, options of the run) of a case."""
    count = min(3, methods.get(name).max_experts or 3)
    run = {key: value for key, value in options.items() if key == "rounding"}
    return {"count": count} | {key: value for key, value in options.items() if key not in run}, run


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_bytes_are_equal_for_all_workers_budgets_and_tiles(family, matrices, tmp_path, monkeypatch, name, options):
    parameters, run = split(name, options)
    small = methods.get(name).whole is True  # such methods never see tiles
    found = []
    for number, machine in enumerate(MACHINES):
        monkeypatch.setattr(sizing, "LARGEST_TILE", machine["tile"])
        merge(
            recipe(matrices if small else family, name, **parameters),
            tmp_path / str(number),
            shard_size=100_000 if small else 2_000_000,
            workers=machine["workers"],
            # Methods on whole matrices need what their matrices take; threads and tiles still vary.
            memory=2**31 if methods.get(name).whole else machine["memory"],
            seed=7,
            cache=number > 0,
            **run,
        )
        found.append(tree(tmp_path / str(number)))
    assert len(found[0]) > 4, "several shards, so that their order matters"
    assert found[0] == found[1] == found[2]


def test_budgets_alone_cut_other_tiles_of_the_same_bytes(family, tmp_path):
    asked = recipe(family, "ties", density=0.2) | {"dtype": "float64"}
    tiles, found = set(), []
    for memory in (40 * 10**6, 512 * 10**6, 2 * 10**9):
        for workers in (1, 2, 4) if memory == 40 * 10**6 else (2,):
            plan = rlmerge.plan(asked, memory=memory, workers=workers)
            tiles.add((plan.sizing.threads, plan.sizing.tile))
            out = tmp_path / f"{memory}-{workers}"
            merge(asked, out, memory=memory, workers=workers)
            found.append(tree(out))
    assert len(tiles) > 1
    assert all(other == found[0] for other in found)


def merged(family, out, name, options):
    """Merge files, and read the result back."""
    parameters, run = split(name, options)
    merge(recipe(family, name, **parameters), out, seed=7, memory=2**31, **run)
    return read_model(out)


KINDS = {"model.embed_tokens.weight": "embedding", "lm_head.weight": "head"}
"""What methods on whole matrices may treat apart."""


def looks_at_the_whole_model(name, options):
    """Whether a tensor's values depend on other tensors."""
    scopes = [options.get("scope", p.default) for p in methods.get(name).parameters if p.name == "scope"]
    return name == "ram_plus" or "global" in scopes


LOCAL = [(name, options) for name, options in CASES if not looks_at_the_whole_model(name, options)]


@pytest.mark.parametrize(("name", "options"), LOCAL, ids=["-".join([name, *options]) for name, options in LOCAL])
def test_bytes_are_those_of_the_formula_on_numpy(family, values, matrices, tmp_path, monkeypatch, name, options):
    on_numpy = []
    monkeypatch.setattr(on_numpy_module, "NumpyMerger", lambda *given: on_numpy.append(name) or NumpyMerger(*given))
    small = methods.get(name).whole is True
    found = merged(matrices if small else family, tmp_path / "out", name, options)
    base, experts = rounded_values(MATRICES) if small else values
    parameters, run = split(name, options)
    count = parameters.pop("count")
    has_base = parameters.pop("base", True)
    for tensor, weights in base.items():
        if not weights.size:
            continue
        mine = [expert[tensor] for expert in experts[:count]]
        donor, kind = weights if has_base else None, KINDS.get(tensor, "")
        expected = interpret(name, donor, mine, real=np.float32, tensor=tensor, seed=7, kind=kind, **parameters)
        expected = rounded(expected, run, tensor)
        np.testing.assert_array_equal(found[tensor].view(np.uint16), expected.view(np.uint16), err_msg=tensor)
    defaults = {p.argument: p.default for p in methods.get(name).parameters if p.is_static}
    compiled = methods.get(name).is_compiled(defaults | parameters)
    assert bool(on_numpy) is not compiled, "memory is planned for the path that is taken"


def rounded(values, run, tensor):
    """float32 to bfloat16: to nearest by ml_dtypes, or up with the probability of the 16 bits that are cut off."""
    if not run:
        return values.astype(BF16)
    key = random.stream_key(7, "rounding", tensor)
    bits = random.bits(key, 0, values.size).reshape(values.shape) >> np.uint32(16)
    return ((values.view(np.uint32) + bits) >> np.uint32(16)).astype(np.uint16).view(BF16)


@pytest.mark.parametrize(
    ("name", "parameters", "same"),
    [
        ("ties", {"density": 0.1, "scope": "global"}, {"density": 0.1}),
        ("ram_plus", {}, {"r": 0.2, "scope": "tensor"}),
    ],
)
def test_statistics_over_the_model_are_those_of_one_long_tensor(family, values, tmp_path, name, parameters, same):
    found = merged(family, tmp_path / "out", name, parameters)
    base, experts = values
    names = [tensor for tensor in base if base[tensor].size]
    flat = [np.concatenate([model[tensor].ravel() for tensor in names]) for model in (base, *experts)]
    expected = interpret(name, flat[0], flat[1:], real=np.float32, **same).astype(BF16)
    np.testing.assert_array_equal(np.concatenate([found[tensor].ravel() for tensor in names]), expected)


def test_a_weighted_average_without_a_base(family, values, tmp_path):
    merge(recipe(family, "linear", base=False, weight=[1.0, 2.0, 1.0]), tmp_path / "out")
    found = read_model(tmp_path / "out")
    for tensor in values[0]:
        x, y, z = (np.asarray(expert[tensor], np.float32) for expert in values[1])
        expected = ((np.float32(1) * x + np.float32(2) * y) + np.float32(1) * z) / np.float32(4)
        np.testing.assert_array_equal(found[tensor], expected.astype(BF16))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_alone_decides_what_chance_does(family, tmp_path, seed):
    for out in ("one", "two"):
        merge(recipe(family, "dare_ties", density=0.5), tmp_path / out, seed=seed)
    merge(recipe(family, "dare_ties", density=0.5), tmp_path / "other", seed=seed + 1)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    name = "model.embed_tokens.weight"
    assert not np.array_equal(read_model(tmp_path / "one")[name], read_model(tmp_path / "other")[name])


def test_integers_are_copied_and_side_files_come_along(family, tmp_path):
    merge(recipe(family, "linear"), tmp_path / "out")
    assert read_model(tmp_path / "out")["model.rotary.steps"].tolist() == list(range(7))
    assert (tmp_path / "out" / "config.json").read_bytes() == (family / "base" / "config.json").read_bytes()
    assert rlmerge.verify(tmp_path / "out").ok
