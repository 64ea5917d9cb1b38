"""`rlmerge convert`: from what training leaves to a sealed directory, bit for bit."""

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import rlmerge as package
from support.adapters import write_adapter
from support.models import read_model, write_model

FORMATS = Path(__file__).parents[1] / "fixtures" / "formats"
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": True}


def reference():
    """What all checkpoints of the fixtures hold: 1000 k + 0, 1, 2 … in tensor number k."""
    told = json.loads((FORMATS / "reference.json").read_text())
    return {name: (1000 * k + np.arange(np.prod(s), dtype="<f4")).reshape(s) for name, (k, s) in told.items()}


def bits(tensors):
    return {name: (str(tensor.dtype), tensor.shape, tensor.tobytes()) for name, tensor in tensors.items()}


def converted(rlmerge, folder, *arguments):
    """The tensors that `rlmerge convert` writes to ``out``, which is sealed and whole."""
    done = rlmerge("convert", *arguments, "-o", "out", "--quiet")
    assert done.returncode == 0, done.stderr
    assert package.verify(folder / "out").ok
    return read_model(folder / "out")


@pytest.mark.parametrize("form", ["fsdp2", "hsdp", "dcp-app", "zero3"])
def test_what_training_leaves_bit_by_bit(rlmerge, tmp_path, form):
    tensors = converted(rlmerge, tmp_path, FORMATS / form)
    expected = reference()
    assert expected.keys() <= tensors.keys()
    assert bits({name: tensors[name] for name in expected}) == bits(expected)


def test_a_plain_model_keeps_its_bits_and_files(rlmerge, tmp_path):
    numbers = np.array(
        [[3.3e38, -0.0, 2.0**-133], [1.0, 1e-38, -65504.0]]
    )  # nearly the largest, and two subnormal ones
    write_model(tmp_path / "plain", {"model.embed_tokens.weight": np.ones((4, 3)), "w": numbers, "steps": np.arange(3)},
                "bfloat16", CONFIG | {"extra": 1})  # fmt: skip
    (tmp_path / "plain" / "generation_config.json").write_text('{"eos_token_id": 3}')
    tensors = converted(rlmerge, tmp_path, "plain")
    assert bits(tensors) == bits(read_model(tmp_path / "plain"))
    for name in ("config.json", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_numbers_that_are_not_finite(rlmerge, tmp_path):
    """Refused, or kept as they are: masks may hold infinities."""
    mask = np.array([[np.nan, np.inf], [-0.0, -np.inf]])
    write_model(tmp_path / "plain", {"model.mask": mask}, "bfloat16", CONFIG)
    done = rlmerge("convert", "plain", "-o", "out")
    assert done.returncode == 2
    assert "3 values are not finite" in done.stderr
    tensors = converted(rlmerge, tmp_path, "plain", "--on-nonfinite", "keep")
    assert bits(tensors) == bits(read_model(tmp_path / "plain"))


def test_an_adapter_on_its_base(rlmerge, tmp_path):
    """1 + 2 · B A with scale alpha / r = 2."""
    w = "model.layers.0.self_attn.q_proj"
    write_model(tmp_path / "base", {f"{w}.weight": np.ones((2, 3)), "model.norm.weight": [1.0, 1, 1]}, config=CONFIG)
    factors = {f"{w}.lora_A.weight": [[1, 0, 2]], f"{w}.lora_B.weight": [[1], [2]]}
    write_adapter(tmp_path / "adapter", {name: np.array(x, np.float32) for name, x in factors.items()},
                  r=1, lora_alpha=2, base_model_name_or_path="base")  # fmt: skip
    expected = {f"{w}.weight": [[3, 1, 5], [5, 1, 9]], "model.norm.weight": [1, 1, 1]}
    for arguments in (["adapter", "--base", "base"], ["base+adapter"], ["adapter"]):
        tensors = converted(rlmerge, tmp_path, *arguments)
        assert {name: tensor.tolist() for name, tensor in tensors.items()} == expected
        assert not (tmp_path / "out" / "adapter_config.json").exists()
        shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize("given", ["bfloat16", "bf16"])
def test_out_dtype_rounds_to_nearest_even(rlmerge, tmp_path, given):
    tensors = converted(rlmerge, tmp_path, FORMATS / "fsdp2", "--out-dtype", given)
    expected = {name: array.astype(ml_dtypes.bfloat16) for name, array in reference().items()}
    assert bits({name: tensors[name] for name in expected}) == bits(expected)


def test_out_dtype_is_that_of_the_configuration(rlmerge, tmp_path):
    write_model(tmp_path / "plain", {"w": np.ones((2, 2)), "steps": np.arange(3)}, config=CONFIG | {"dtype": "float32"})
    tensors = converted(rlmerge, tmp_path, "plain", "--out-dtype", "float16")
    assert {name: str(tensor.dtype) for name, tensor in tensors.items()} == {"w": "float16", "steps": "int64"}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float16"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "-o", "out"], "error: nowhere: no such directory"),
        (["plain"], "error: Missing option '-o' / '--out'."),
        (["plain", "-o", "plain"], "plain"),
        (["plain", "-o", "out", "--out-dtype", "bfloat61"], "bfloat61"),
        (["adapter", "-o", "out"], "gone"),
        (["plain", "-o", "out", "--base", "nowhere"], "nowhere"),
    ],
)
def test_a_wrong_request_is_exit_2_and_writes_nothing(rlmerge, tmp_path, arguments, message):
    write_model(tmp_path / "plain", {"w": np.ones((2, 2))}, config=CONFIG)
    write_adapter(tmp_path / "adapter", {"w.lora_A.weight": np.ones((1, 2), np.float32),
                                         "w.lora_B.weight": np.ones((2, 1), np.float32)},
                  base_model_name_or_path=str(tmp_path / "gone"))  # fmt: skip
    before = sorted(tmp_path.rglob("*"))
    done = rlmerge("convert", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_json(rlmerge, tmp_path):
    write_model(tmp_path / "plain", {"w": np.ones((2, 2))}, config=CONFIG)
    done = rlmerge("convert", "plain", "-o", "out", "--format", "json")
    result = json.loads(done.stdout)
    assert (result["tensors"], result["out"]) == (1, "out")
