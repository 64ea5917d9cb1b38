"""Adapters merged into one: the factors hold the sum exactly, or as nearly as a rank allows, in what PEFT can load."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from rlmerge.adapters import write_adapter_merge
from rlmerge.checkpoint import open_checkpoint, verify
from rlmerge.errors import CheckpointError, RequestError
from rlmerge.kernels.dtypes import BFLOAT16
from support.adapters import MADE, PREFIX, factors, values, write_adapter
from support.models import write_model


def adapters(base, *names):
    found = open_checkpoint(MADE / base / "base")
    return found, [open_checkpoint(MADE / base / name, base=found) for name in names]


def expected_sum(base, experts, weights):
    """base + Σ c (expert − base) in float64; a head that is not stored is the embedding."""

    def table(model, name):
        arrays = values(model)
        return arrays.get(name, arrays.get("model.embed_tokens.weight")).astype(np.float64)

    names = dict.fromkeys(name for model in [base, *experts] for name in model.tensors)
    sums = {}
    for name in names:
        before = table(base, name)
        sums[name] = before + sum(
            weight * (table(expert, name) - before) for weight, expert in zip(weights, experts, strict=True)
        )
    return sums


PAIRS = [
    ("llama", ("plain", "rslora"), [0.5, 0.5]),
    ("llama", ("plain", "patterns", "rslora"), [0.7, -0.4, 1.0]),
    ("llama", ("plain", "plain"), [1.0, 0.0]),
    ("llama", ("embed", "head"), [0.7, 0.4]),
    ("llama", ("embed", "save-embed"), [0.7, 0.4]),
    ("llama", ("save-both", "embed-head-tied"), [0.7, 0.4]),
    ("llama", ("save-norms", "plain"), [0.7, 0.4]),
    ("llama", ("rows", "plain"), [0.7, 0.4]),
    ("llama", ("rows", "rows"), [0.7, 0.4]),
    ("llama", ("rows-apart", "rows-head"), [0.7, 0.4]),
    ("qwen2", ("bias-all", "lora-bias"), [0.7, 0.4]),
    ("gpt2", ("conv1d-bias",), [0.7]),
    ("mixtral", ("fused", "modules"), [0.7, 0.4]),
    ("olmoe", ("square", "square"), [0.7, 0.4]),
    ("gpt-oss", ("transposed",), [0.7]),
]


@pytest.mark.parametrize(("name", "experts", "weights"), PAIRS, ids=lambda value: str(value))
def test_the_adapter_is_the_sum(name, experts, weights, tmp_path):
    base, opened = adapters(name, *experts)
    result = write_adapter_merge(base, opened, lambda _: weights, tmp_path / "out")
    found = values(open_checkpoint(tmp_path / "out", base=base))
    expected = expected_sum(base, opened, weights)
    assert found.keys() == expected.keys()
    for tensor, value in expected.items():
        # The factors are rounded once, their product to float32: 1e-6 of numbers up to 10.
        np.testing.assert_allclose(found[tensor], value, rtol=0, atol=1e-5, err_msg=tensor)
    assert result.residual == 0 and verify(tmp_path / "out").ok


def test_the_stored_factors_are_the_inputs_side_by_side(tmp_path):
    base, experts = adapters("llama", "plain", "rslora")
    write_adapter_merge(base, experts, lambda _: [0.5, 2.0], tmp_path / "out")
    out, one, two = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (tmp_path / "out", MADE / "llama" / "plain", MADE / "llama" / "rslora")
    )
    name = f"{PREFIX}model.layers.1.mlp.up_proj.lora_"
    assert np.array_equal(out[f"{name}A.weight"], np.concatenate([one[f"{name}A.weight"], two[f"{name}A.weight"]]))
    scaled = [0.5 * 2 * one[f"{name}B.weight"], (2 * 4 / np.sqrt(3)) * two[f"{name}B.weight"].astype(np.float64)]
    assert np.array_equal(out[f"{name}B.weight"], np.concatenate(scaled, axis=1).astype(np.float32))


def test_the_configuration_scales_by_one_everywhere(tmp_path):
    base, experts = adapters("llama", "plain", "patterns")
    result = write_adapter_merge(base, experts, lambda _: [0.5, 0.5], tmp_path / "out", base_name="org/base")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"], config["lora_alpha"]) == ("org/base", 4, 4)
    assert config["rank_pattern"] == config["alpha_pattern"]
    assert config["rank_pattern"][r"model\.layers\.0\.self_attn\.q_proj"] == 3
    assert config["rank_pattern"][r"model\.layers\.1\.mlp\.down_proj"] == 6
    assert config["target_modules"] == sorted(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    assert {module.name: module.rank for module in result.modules}["model.layers.0.self_attn.q_proj"] == 3


def test_coefficients_are_a_tensor_s_own(tmp_path):
    base, experts = adapters("llama", "plain")
    write_adapter_merge(base, experts, lambda name: [3.0 if "q_proj" in name else 0.0], tmp_path / "out")
    found, before = values(open_checkpoint(tmp_path / "out", base=base)), values(base)
    changed = {name for name in found if not np.array_equal(found[name], before[name])}
    assert changed == {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)}
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["q_proj"]


@pytest.mark.parametrize(
    ("name", "experts"), [("llama", ("plain", "rslora", "embed")), ("mixtral", ("fused", "modules"))]
)
def test_a_rank_gives_the_nearest_factors_and_says_what_they_lack(name, experts, tmp_path):
    base, opened = adapters(name, *experts)
    weights = [0.6, 0.5, 0.4][: len(opened)]
    result = write_adapter_merge(base, opened, lambda _: weights, tmp_path / "out", rank=2)
    found, expected, before = (
        values(open_checkpoint(tmp_path / "out", base=base)),
        expected_sum(base, opened, weights),
        values(base),
    )
    lost = total = 0.0
    for tensor in before:
        lost += np.square(found[tensor] - expected[tensor]).sum()
        total += np.square(expected[tensor] - before[tensor]).sum()
    # Float32 of the product against float64 of the residual.
    assert result.residual == pytest.approx(np.sqrt(lost / total), rel=1e-4)
    assert 0.05 < result.residual < 0.9
    update = expected["model.layers.0.self_attn.q_proj.weight"] - before["model.layers.0.self_attn.q_proj.weight"]
    best = np.linalg.svd(update, compute_uv=False)[2:]
    [module] = [module for module in result.modules if module.name == "model.layers.0.self_attn.q_proj"]
    assert module.lost == pytest.approx(np.square(best).sum(), rel=1e-5)
    assert (module.rank, module.exact_rank) == (
        2,
        sum({"plain": 2, "rslora": 3, "embed": 2}.get(e, 2) for e in experts),
    )


def test_a_rank_that_is_enough_loses_nothing(tmp_path):
    base, experts = adapters("llama", "plain", "plain")
    result = write_adapter_merge(base, experts, lambda _: [0.5, 0.5], tmp_path / "out", rank=99)
    assert result.residual == 0 and {module.rank for module in result.modules} == {4}


def test_a_smaller_type_rounds_the_factors(tmp_path):
    base, experts = adapters("llama", "plain")
    write_adapter_merge(base, experts, lambda _: [1.0], tmp_path / "out", dtype=BFLOAT16)
    opened = open_checkpoint(tmp_path / "out", base=base)
    assert opened.tensors["model.layers.0.self_attn.q_proj.weight"].update.a.dtype is BFLOAT16


def test_bytes_do_not_depend_on_the_pieces(tmp_path, monkeypatch):
    base, experts = adapters("mixtral", "fused", "modules")
    write_adapter_merge(base, experts, lambda _: [0.7, 0.4], tmp_path / "one")
    monkeypatch.setattr("rlmerge.adapters.factors._CHUNK", 17)
    write_adapter_merge(base, experts, lambda _: [0.7, 0.4], tmp_path / "two")
    one, two = (tmp_path / name / "adapter_model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def refused(message, *arguments, **settings):
    with pytest.raises(RequestError, match=message):
        write_adapter_merge(*arguments, **settings)


def test_dora_is_no_sum_of_factors(tmp_path):
    base, experts = adapters("llama", "plain", "dora")
    refused("DoRA", base, experts, lambda _: [0.5, 0.5], tmp_path / "out")
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_a_full_model_is_no_adapter(tmp_path):
    base, experts = adapters("llama", "plain")
    refused(
        "is no adapter", base, [*experts, open_checkpoint(MADE / "llama" / "base")], lambda _: [1, 1], tmp_path / "o"
    )


def test_adapters_of_a_base_opened_again_are_refused(tmp_path):
    _, experts = adapters("llama", "plain")
    again = open_checkpoint(MADE / "llama" / "base")
    refused("opened on another base", again, experts, lambda _: [1], tmp_path / "out")


def test_ties_kept_by_one_and_cut_by_another_are_refused(tmp_path):
    base, experts = adapters("llama", "rows", "embed")
    refused("head tied to it together, others apart", base, experts, lambda _: [1, 1], tmp_path / "out")


def test_experts_with_coefficients_of_their_own_are_refused(tmp_path):
    base, experts = adapters("mixtral", "fused")
    refused(
        "other coefficients for some of the tensors",
        base,
        experts,
        lambda name: [2.0 if ".experts.1." in name else 1.0],
        tmp_path / "out",
    )


def test_nothing_to_write_is_refused(tmp_path):
    base, experts = adapters("llama", "plain")
    refused("no update of low rank is left", base, experts, lambda _: [0.0], tmp_path / "out")
    refused("at least 1", base, experts, lambda _: [1.0], tmp_path / "out", rank=0)


def test_different_names_of_one_module_are_refused(tmp_path):
    base = open_checkpoint(write_model(tmp_path / "base", {"model.q.weight": np.ones((4, 6))}))
    folders = [write_adapter(tmp_path / name, factors(name, 4, 6)) for name in ("model.q", "q")]
    experts = [open_checkpoint(folder, base=base) for folder in folders]
    refused("call it by different names", base, experts, lambda _: [1, 1], tmp_path / "out")


@pytest.mark.parametrize("rank", [None, 1])
def test_a_factor_that_is_not_finite_is_an_error_and_can_be_resumed(tmp_path, rank):
    base = open_checkpoint(write_model(tmp_path / "base", {"model.q.weight": np.ones((4, 6))}))
    tensors = factors("model.q", 4, 6)
    tensors["model.q.lora_B.weight"][1, 1] = np.nan
    experts = [open_checkpoint(write_adapter(tmp_path / "adapter", tensors), base=base)]
    with pytest.raises(CheckpointError, match="not finite"):
        write_adapter_merge(base, experts, lambda _: [1.0], tmp_path / "out", rank=rank)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_run_continues(tmp_path, monkeypatch):
    base, experts = adapters("llama", "plain", "rslora")
    arguments = (base, experts, lambda _: [0.5, 0.25])
    whole = write_adapter_merge(*arguments, tmp_path / "whole", rank=3)
    calls = []

    class Stop:
        start = done = message = staticmethod(lambda *_: None)

        @staticmethod
        def advance(amount):
            calls.append(amount)
            if len(calls) == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_adapter_merge(*arguments, tmp_path / "out", rank=3, progress=Stop)
    with pytest.raises(RequestError, match="interrupted run left 5 finished tensors"):
        write_adapter_merge(*arguments, tmp_path / "out", rank=3)
    again = write_adapter_merge(*arguments, tmp_path / "out", rank=3, resume=True)
    one, two = (tmp_path / name / "adapter_model.safetensors" for name in ("whole", "out"))
    assert one.read_bytes() == two.read_bytes()
    assert again.modules == whole.modules, "what the first part lost is remembered"


def test_files_go_along(tmp_path):
    base, experts = adapters("llama", "plain")
    write_adapter_merge(base, experts, lambda _: [1.0], tmp_path / "out", files={"README.md": b"text"})
    assert (tmp_path / "out" / "README.md").read_bytes() == b"text"
    assert verify(tmp_path / "out").ok
    assert SimpleNamespace(**json.loads((tmp_path / "out" / "adapter_config.json").read_text())).peft_type == "LORA"
