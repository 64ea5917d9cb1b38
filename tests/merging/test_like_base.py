"""Merges written in their base's own scheme: bits that stay, codes by hand, accounts, errors, and interruptions."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import rlmerge
from rlmerge.checkpoint import open_checkpoint, verify
from rlmerge.checkpoint.formats.quantised_encode import encoder_of
from rlmerge.errors import RequestError
from rlmerge.merging.as_adapter import merge_as_adapter
from rlmerge.merging.like_base import encoders
from rlmerge.merging.state_dicts import merge_state_dicts
from rlmerge.options import Options
from rlmerge.recipe import recipe_from_flags
from rlmerge.recipe.load import load_recipe
from support import quantised
from support.family import cli, tree
from support.schemes import (
    FP8,
    MODELS,
    kinds,
    numbers,
    raw,
    recipe,
    write,
    write_expert,
)


@pytest.mark.parametrize("kind", MODELS)
def test_an_expert_equal_to_the_base_gives_the_base_bit_for_bit(tmp_path, kind):
    base, same = write(tmp_path / "base", kind), write(tmp_path / "same", kind)
    result = rlmerge.merge(recipe(base, same, **{"lambda": 0.7}), tmp_path / "out", out_dtype="like-base")
    assert raw(tmp_path / "out") == raw(base)
    assert (tmp_path / "out" / "config.json").read_bytes() == (base / "config.json").read_bytes()
    assert verify(tmp_path / "out").ok
    assert (result.changed, result.survived) == (0, 0)


@pytest.mark.parametrize("kind", MODELS)
def test_one_expert_at_weight_one_is_the_expert_encoded(tmp_path, kind):
    base = write(tmp_path / "base", kind)
    expert = write_expert(tmp_path / "e", base, 3)
    rlmerge.merge(recipe(base, expert, **{"lambda": 1.0}), tmp_path / "out", out_dtype="like-base", workers=2)
    assert verify(tmp_path / "out").ok
    found = raw(tmp_path / "out")
    theirs = load_file(expert / "model.safetensors")
    expected = {}
    for name, source in open_checkpoint(base).tensors.items():
        encoder = encoder_of(source)
        if encoder is None:
            expected[name] = theirs[name].view(torch.uint8).numpy().tobytes()
            continue
        # base + (expert - base) in float32 is what the method computes; it may be off from the expert by a rounding.
        # What no expert changed is the base's own number, -0 too.
        start, values = source.read(), theirs[name].reshape(-1).numpy()
        wanted = np.where(values == start, start, start + (values - start))
        parts = [encoder.encode(first, wanted[first:stop]).stored for first, stop in encoder.units()]
        for output, data in zip(encoder.outputs, zip(*parts, strict=True), strict=True):
            expected[output.name] = b"".join(x.tobytes() for x in data)
    assert {name: data for name, (_, _, data) in found.items()} == expected
    assert kinds(tmp_path / "out") == kinds(base)


def test_a_scale_and_a_code_by_hand(tmp_path):
    """λ = 0.5 of +448 on 448 is 672: the block's scale grows to 1.5 and 3 becomes the code 2; the other block stays."""
    config = {"quant_method": "fp8", "weight_block_size": [1, 2]}
    codes = torch.tensor([[448.0, 3.0, 448.0, -5.0]]).to(torch.float8_e4m3fn)
    tensors = {"l.weight": codes, "l.weight_scale_inv": torch.tensor([[1.0, 0.75]])}
    base = quantised.write(tmp_path / "base", tensors, config)
    expert = quantised.write(tmp_path / "e", {"l.weight": torch.tensor([[896.0, 3.0, 336.0, -3.75]])})
    rlmerge.merge(recipe(base, expert, **{"lambda": 0.5}), tmp_path / "out", out_dtype="like-base")
    out = load_file(tmp_path / "out" / "model.safetensors")
    assert out["l.weight_scale_inv"].tolist() == [[1.5, 0.75]]
    assert out["l.weight"].float().tolist() == [[448, 2, 448, -5]]


@pytest.mark.parametrize("kind", MODELS)
def test_the_account_is_that_of_a_reference_in_float64(tmp_path, kind):
    base = write(tmp_path / "base", kind)
    models = [write_expert(tmp_path / f"e{k}", base, k, scale=3e-3) for k in range(2)]
    asked = recipe(base, *models, **{"lambda": 0.5})
    result = rlmerge.merge(asked, tmp_path / "out", out_dtype="like-base", workers=2)
    rlmerge.merge(asked, tmp_path / "wide", out_dtype="float32")
    start, stored, wide = numbers(base), numbers(tmp_path / "out"), numbers(tmp_path / "wide")
    theirs = [numbers(model) for model in models]
    counts = np.zeros((2, 4), int)
    sums = np.zeros((2, 5))
    for name, theta in start.items():
        moved = [expert[name] != theta for expert in theirs]
        # What is not quantised is rounded to bfloat16 before it is compared.
        merged, out = wide[name], stored[name]
        for k in range(2):
            alone = moved[k] & ~moved[1 - k]
            gone = (merged != theta) & (out == theta)
            counts[k] += [np.count_nonzero(x) for x in (moved[k], moved[k] & (out != theta), alone, moved[k] & gone)]
            tau = theirs[k][name] - theta
            sums[k] += [
                ((merged - theta) * tau)[alone].sum(),
                ((out - theta) * tau)[alone].sum(),
                (tau * tau)[alone].sum(),
                ((out - theta) * tau).sum(),
                (tau * tau).sum(),
            ]
    for k, expert in enumerate(result.experts):
        assert (expert.changed, expert.survived, expert.unique, expert.erased) == tuple(counts[k])
        asked_for, kept, square, along, whole = sums[k]
        # Task vectors and products are of float32 numbers: 2^-24 each, relative to the sums of the magnitudes.
        assert expert.requested == pytest.approx(asked_for / square, rel=1e-5)
        assert expert.realised == pytest.approx(kept / square, rel=1e-4)
        assert expert.projection == pytest.approx(along / whole, rel=1e-4)
    assert all(expert.erased for expert in result.experts)


def test_what_encoding_erased_is_said(tmp_path):
    base = write(tmp_path / "base", "fp8")
    expert = write_expert(tmp_path / "e", base, 4, scale=1e-4, share=1.0)
    result = rlmerge.merge(recipe(base, expert), tmp_path / "out", out_dtype="like-base")
    (said,) = [text for text in result.warnings if "erased" in text]
    assert said.startswith("rounding to the base's own format erased ")
    assert "stochastic" not in said


@pytest.mark.parametrize("kind", ["fp8", "mxfp4"])
def test_bytes_do_not_depend_on_threads_memory_or_shards(tmp_path, kind):
    base = write(tmp_path / "base", kind)
    expert = write_expert(tmp_path / "e", base, 5)
    asked = recipe(base, expert, method="ties", density=0.6)
    first = rlmerge.merge(asked, tmp_path / "a", out_dtype="like-base", workers=1, memory="1GiB")
    second = rlmerge.merge(asked, tmp_path / "b", out_dtype="like-base", workers=3, memory="64MiB")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert first.experts == second.experts
    rlmerge.merge(asked, tmp_path / "c", out_dtype="like-base", shard_size=500)
    assert len(list((tmp_path / "c").glob("*.safetensors"))) > 1
    assert raw(tmp_path / "c") == raw(tmp_path / "a")
    assert verify(tmp_path / "c").ok


def test_the_recipe_may_say_it_and_the_lock_rebuilds_it(tmp_path):
    base = write(tmp_path / "base", "fp8")
    expert = write_expert(tmp_path / "e", base, 6)
    rlmerge.merge({**recipe(base, expert), "out_dtype": "like-base"}, tmp_path / "out")
    rlmerge.merge(recipe(base, expert), tmp_path / "other", out_dtype="like-base")
    assert raw(tmp_path / "out") == raw(tmp_path / "other")
    rlmerge.merge(tmp_path / "out" / "rlmerge.lock.yaml", tmp_path / "again")
    assert raw(tmp_path / "again") == raw(tmp_path / "out")


def test_what_only_the_base_has_is_copied_as_it_is_stored(tmp_path):
    base = write(tmp_path / "base", "fp8")
    expert = write_expert(tmp_path / "e", base, 7)
    rest = load_file(expert / "model.safetensors")
    del rest["model.layers.1.mlp.up_proj.weight"]
    rest["model.layers.0.mlp.up_proj.weight"] = rest["model.layers.0.mlp.up_proj.weight"].bfloat16()
    save_file(rest, expert / "model.safetensors", {"format": "pt"})
    rlmerge.merge(recipe(base, expert), tmp_path / "out", out_dtype="like-base")
    mine, theirs = raw(tmp_path / "out"), raw(base)
    assert {name for name in mine if mine[name] != theirs[name]} <= {
        "model.norm.weight", "model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight",
        "model.layers.0.mlp.up_proj.weight_scale_inv",
    }  # fmt: skip
    assert mine.keys() == theirs.keys()


def refused(match, asked, tmp_path, **options):
    with pytest.raises(RequestError, match=match):
        rlmerge.merge(asked, tmp_path / "out", **{"out_dtype": "like-base", **options})
    assert not (tmp_path / "out").exists()


def test_what_is_refused(tmp_path):
    base = write(tmp_path / "base", "fp8")
    plain = write_expert(tmp_path / "e", base, 8)
    half, other = (quantised.write(tmp_path / x, {"l.weight": torch.ones(8, 64).bfloat16()}) for x in ("half", "other"))
    refused("like-base needs a quantised base; this one holds bfloat16", recipe(half, other), tmp_path)
    without = {"merge_method": "linear", "models": [{"model": str(plain)}], "parameters": {"weight": 1.0}}
    refused("like-base needs a base", without, tmp_path)
    refused("stochastic rounding writes", recipe(base, plain), tmp_path, rounding="stochastic")
    refused("is not a type to merge in", recipe(base, plain), tmp_path, dtype="like-base", out_dtype=None)
    zeros = {f"l.weight_{end}": part for end, part in quantised.int4(6, 8, 64, 32)[0].items()}
    zeros["l.weight_zero_point"] = torch.zeros(1, 2, dtype=torch.int32)
    only_read = quantised.write(tmp_path / "zeros", zeros)
    refused("has zero points", recipe(only_read, half), tmp_path)
    sliced = {
        "merge_method": "task_arithmetic",
        "base_model": str(base),
        "slices": [
            {"sources": [{"model": str(model), "layer_range": [layer, layer + 1]} for model in (base, plain)]}
            for layer in (1, 0)
        ],
    }
    opened = open_checkpoint(base)
    with pytest.raises(RequestError, match="like-base writes whole models"):
        encoders(load_recipe(sliced), opened, opened.tensors)
    state = {"w": np.ones(3, np.float32)}
    with pytest.raises(RequestError, match="like-base is for files"):
        merge_state_dicts(state, [state], out_dtype="like-base")
    asked = recipe_from_flags("task_arithmetic", str(base), [str(plain)])
    with pytest.raises(RequestError, match="an adapter is not stored like-base"):
        merge_as_adapter(asked, tmp_path / "out", Options(out_dtype="like-base"))


def test_only_the_last_of_several_recipes_can_be_like_base(tmp_path):
    base = write(tmp_path / "base", "fp8")
    expert = write_expert(tmp_path / "e", base, 8)
    inner = {**recipe(base, expert), "name": "inner", "out_dtype": "like-base"}
    documents = "\n---\n".join(json.dumps(x) for x in (inner, recipe(base, "inner")))
    (tmp_path / "recipe.yaml").write_text(documents)
    refused("only the result of the last recipe can be like-base", tmp_path / "recipe.yaml", tmp_path, out_dtype=None)


def test_the_spelling_is_exact():
    text = "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: a}]\nout_dtype: "
    assert load_recipe(f"{text}like-base\n").out_dtype == "like-base"
    with pytest.raises(RequestError, match=r"'like_base' is not a type to merge in\n  Known: .*, like-base"):
        load_recipe(f"{text}like_base\n")


def test_the_command_line(tmp_path):
    base = write(tmp_path / "base", "fp8")
    expert = write_expert(tmp_path / "e", base, 9)
    flags = ("merge", "--method", "task_arithmetic", "--base", base, expert, "--out-dtype", "like-base")
    planned = cli(tmp_path, "plan", *flags[1:], "--format", "json")
    assert json.loads(planned.stdout)["dtypes"] == ["bfloat16", "float32", "float8_e4m3fn"]
    cli(tmp_path, *flags, "-o", tmp_path / "out")
    cli(tmp_path, "verify", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"] == FP8


DIES = """
import os, sys
from rlmerge.checkpoint.shard_writer import ShardWriter
finish, left = ShardWriter.finish_tensor, [{count}]
def stop(self, name, stats):
    entry = finish(self, name, stats)
    left[0] -= 1
    if not left[0]:
        os._exit(9)
    return entry
ShardWriter.finish_tensor = stop
from rlmerge.cli import main
main()
"""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Flags of a merge, and what a run of it without interruption writes and says."""
    folder = tmp_path_factory.mktemp("resumed")
    base = write(folder / "base", "fp8")
    expert = write_expert(folder / "e", base, 10)
    flags = ["merge", "--method", "ties", "--base", str(base), str(expert), "--out-dtype", "like-base"]
    done = cli(folder, *flags, "-o", folder / "fresh", "--format", "json")
    return flags, tree(folder / "fresh"), json.loads(done.stdout)


@pytest.mark.parametrize(("count", "resumed"), [(3, 2), (4, 3), (6, 4)])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, uninterrupted, count, resumed):
    """Killed after so many journal entries: norm and embedding, codes and scales, codes and scales.

    The third entry is of codes whose scales are not there yet; their tensor does not count as finished.
    """
    flags, expected, said = uninterrupted
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-c", DIES.format(count=count), *flags, "-o", str(tmp_path / "out")]
    assert subprocess.run(program, env=environment, capture_output=True).returncode == 9
    done = json.loads(cli(tmp_path, *flags, "-o", tmp_path / "out", "--resume", "--format", "json").stdout)
    assert done["resumed"] == resumed
    assert tree(tmp_path / "out") == expected
    assert done["experts"] == said["experts"]


def test_another_output_type_is_another_run(tmp_path):
    base = write(tmp_path / "base", "fp8")
    expert = write_expert(tmp_path / "e", base, 11)
    first = rlmerge.plan(recipe(base, expert), out=tmp_path / "out", out_dtype="like-base")
    second = rlmerge.plan(recipe(base, expert), out=tmp_path / "out")
    assert first.digest != second.digest


def test_transformers_loads_what_was_written(tmp_path):
    """The numbers transformers makes of codes and scales are those that the checkpoint reader makes of them."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.LlamaConfig(num_key_value_heads=2, vocab_size=64, tie_word_embeddings=False, **sizes)
    model = transformers.LlamaForCausalLM(config).bfloat16()
    tensors = {}
    for seed, (name, weight) in enumerate(model.state_dict().items()):
        tensors[name] = weight
        if "proj" in name:
            tensors[name], tensors[f"{name}_scale_inv"] = quantised.fp8(seed, tuple(weight.shape))
    base = quantised.write(tmp_path / "base", tensors)
    stated = {**config.to_dict(), "torch_dtype": "bfloat16", "architectures": ["LlamaForCausalLM"]}
    stated["quantization_config"] = {**FP8, "activation_scheme": "dynamic"}
    (base / "config.json").write_text(json.dumps(stated))
    expert = write_expert(tmp_path / "e", base, 12)
    rlmerge.merge(recipe(base, expert), tmp_path / "out", out_dtype="like-base")
    plain = transformers.FineGrainedFP8Config(dequantize=True)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", quantization_config=plain, dtype=torch.bfloat16
    )
    expected = numbers(tmp_path / "out")
    for name, weight in loaded.state_dict().items():
        wanted = torch.from_numpy(expected[name]).float().bfloat16().reshape(weight.shape)
        assert torch.equal(weight, wanted), name
