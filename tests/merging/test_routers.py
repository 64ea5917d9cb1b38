"""Routers of a mixture of experts: counted apart, measured from what was stored, and taken from one model by a rule."""

import json
import math
from importlib import import_module

import numpy as np
import pytest

from support.merges import merge, write
from support.models import read_model

ROUTER, OTHER = "model.layers.0.mlp.gate.weight", "model.layers.0.self_attn.q_proj.weight"
BASE = {ROUTER: [[3.0, 0.0], [0.0, 4.0]], OTHER: [[1.0, 1.0], [1.0, 1.0]]}
A = {ROUTER: [[3.0, 1.0], [0.0, 4.0]], OTHER: [[1.0, 2.0], [1.0, 1.0]]}
B = {ROUTER: [[3.0, 0.0], [0.0, 6.0]], OTHER: [[1.0, 1.0], [3.0, 1.0]]}
"""‖θ₀‖ of the router is 5; A moves it by 1 in one entry, B by 2 in another."""


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, base=BASE, a=A, b=B)
    return tmp_path


RECIPE = "{{merge_method: task_arithmetic, base_model: $/base, models: [$/a, $/b], parameters: {}}}".format


def test_a_merge_by_hand(folder):
    merged, result = merge(folder, RECIPE("{weight: 0.5}"))
    assert merged[ROUTER] == [[3.0, 0.5], [0.0, 5.0]]
    routers = result.routers
    a, b = routers.experts
    assert (routers.tensors, routers.parameters, routers.changed, routers.survived) == (1, 4, 2, 2)
    assert (a.changed, a.survived, a.unique, a.requested, a.realised) == (1, 1, 1, 0.5, 0.5)
    assert (a.moved, b.moved) == (1 / 5, 2 / 5)
    # out − θ₀ = (0.5, 1), out − A = (−0.5, 1), out − B = (0.5, −1)
    far = pytest.approx(math.sqrt(1.25) / 5)
    assert (routers.moved, a.distance, b.distance) == (far, far, far)
    assert routers.is_mixed
    assert any("the routers (1) are merged from several experts" in warning for warning in result.warnings)
    # The whole model counts them, too: four changes, all of which survive.
    assert (result.changed, result.survived) == (4, 4)
    data = result.to_dict()["routers"]
    assert json.loads(json.dumps(data)) == data and data["mixed"] and data["experts"][1]["survival"] == 1.0


@pytest.mark.parametrize("pattern", ["router", "mlp.gate."])
def test_routers_of_the_base(folder, pattern):
    merged, result = merge(folder, RECIPE(f"{{weight: [{{filter: {pattern}, value: 0}}, {{value: 1}}]}}"))
    assert merged[ROUTER] == BASE[ROUTER]
    assert merged[OTHER] == [[1.0, 2.0], [3.0, 1.0]]
    assert (result.routers.moved, result.routers.survived, result.routers.is_mixed) == (0.0, 0, False)
    assert not any("router" in warning for warning in result.warnings)


ONE_MODEL = """
merge_method: {method}
base_model: $/base
models:
  - {{model: $/a, parameters: {{weight: [{{filter: router, value: 1}}, {{value: 0.5}}]}}}}
  - {{model: $/b, parameters: {{weight: [{{filter: router, value: 0}}, {{value: 0.5}}]}}}}
"""


@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
def test_routers_of_one_expert(folder, method):
    merged, result = merge(folder, ONE_MODEL.format(method=method))
    assert merged[ROUTER] == A[ROUTER]
    assert merged[OTHER] != A[OTHER]
    a, b = result.routers.experts
    assert (a.distance, result.routers.is_mixed) == (0.0, False)
    assert b.distance == pytest.approx(math.sqrt(5) / 5)
    assert not any("router" in warning for warning in result.warnings)


def test_mergekit_knows_no_kinds(folder):
    """There a filter is a part of the name, and `mlp.gate` has no `router` in it."""
    recipe = RECIPE("{weight: [{filter: router, value: 0}, {value: 1}]}").replace("{merge", "{compat: mergekit, merge")
    merged, result = merge(folder, recipe)
    assert merged[ROUTER] == [[3.0, 1.0], [0.0, 6.0]]
    assert "the filter 'router' matches no tensor" in result.warnings


def test_models_without_routers_have_no_account_of_them(tmp_path):
    dense = "model.layers.0.mlp.gate_proj.weight"
    write(tmp_path, base={dense: [[1.0]]}, a={dense: [[2.0]]}, b={dense: [[3.0]]})
    _, result = merge(tmp_path, RECIPE("{}"))
    assert result.routers is None and result.to_dict()["routers"] is None


def test_without_a_base_there_is_nothing_to_have_moved_from(folder):
    _, result = merge(folder, "{merge_method: linear, models: [$/a, $/b]}")
    assert result.routers is None


@pytest.mark.parametrize("shard_size", [40, 10**9])
def test_narrow_types_many_shards_and_many_chunks(tmp_path, shard_size):
    """Against float64 of what is stored, with a router of more than one chunk among other tensors."""
    rng = np.random.default_rng(0)
    base = {"model.a": np.ones(3), ROUTER: rng.standard_normal((300, 300)), "model.z": np.ones(3)}
    moved = [{**base, ROUTER: base[ROUTER] + 0.1 * rng.standard_normal((300, 300))} for _ in range(2)]
    write(tmp_path, "bfloat16", base=base, a=moved[0], b=moved[1])
    _, result = merge(tmp_path, RECIPE("{weight: 0.5}"), shard_size=shard_size)
    stored = {name: read_model(tmp_path / name)[ROUTER].astype(np.float64) for name in ("base", "a", "b", "out")}
    size = np.linalg.norm(stored["base"])
    assert result.routers.moved == pytest.approx(np.linalg.norm(stored["out"] - stored["base"]) / size)
    for expert, name in zip(result.routers.experts, "ab", strict=True):
        assert expert.moved == pytest.approx(np.linalg.norm(stored[name] - stored["base"]) / size)
        assert expert.distance == pytest.approx(np.linalg.norm(stored["out"] - stored[name]) / size)


def test_the_card_and_the_screen_show_them(folder):
    from rlmerge.cli.merge import merge_text

    _, result = merge(folder, RECIPE("{weight: 0.5}"))
    card = (folder / "out" / "README.md").read_text()
    assert "## The routers" in card and "| a | 20 % | 1 | 100.0% | 0.500 | 0.500 | 22.4 % |" in card
    text = merge_text(result, width=120, color=False)
    (line,) = [line.split() for line in text.split("\n") if "40 %" in line]
    assert line[1:] == ["40", "%", "1", "100.0", "%", "0.0", "%", "0.500", "→", "0.500", "22.4", "%"]
    assert "routers (1)" in text


def test_a_resumed_merge_says_the_same(folder, monkeypatch):
    runs = import_module("rlmerge.merging.run")  # The package has a function of this name.
    _, whole = merge(folder, RECIPE("{weight: 0.5}"))
    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_side_files", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            merge(folder, RECIPE("{weight: 0.5}"), out="again")
    _, result = merge(folder, RECIPE("{weight: 0.5}"), out="again", resume=True)
    assert result.resumed == 2
    assert result.routers == whole.routers
