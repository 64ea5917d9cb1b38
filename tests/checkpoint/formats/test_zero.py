import shutil

import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.errors import CheckpointError
from support.torchfiles import Obj, Tensor, save

STAGE = "deepspeed.runtime.zero.config"


def optimizer(rank):
    return f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"


def model_file(rank=None):
    return "mp_rank_00_model_states.pt" if rank is None else f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt"


def values(*shape, first=0):
    return first + np.arange(np.prod(shape), dtype="<f4").reshape(shape)


def size(*numbers):
    return Obj("torch", "Size", (numbers,), called=True)


def state(stage, groups, world, **more):
    key = "fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups"
    told = {"zero_stage": Obj(STAGE, "ZeroStageEnum", (stage,), called=True), "partition_count": world}
    return {"optimizer_state_dict": told | {key: [Tensor(group) for group in groups]} | more}


def write(root, stage, groups, shapes, *, of_model=None, **more):
    """``groups`` are the flat vectors of each process, ``shapes`` {name: shape} of each group of parameters."""
    for rank, vectors in enumerate(groups):
        save(root / optimizer(rank), state(stage, vectors, len(groups), **more))
    listed = [{name: size(*shape) for name, shape in group.items()} for group in shapes]
    for rank in range(len(groups)) if stage == 3 else [None]:
        told = {"module": {}, "buffer_names": [], "param_shapes": listed, "shared_params": {}} | (of_model or {})
        save(root / model_file(rank), told)
    return root


@pytest.mark.parametrize("stage", [2, 3])
def test_every_stage_holds_the_model(holds, fixtures, stage):
    for folder in (fixtures / f"zero{stage}", fixtures / f"zero{stage}/global_step1"):
        model = holds(folder)
        assert model.format == "a DeepSpeed ZeRO checkpoint"
        assert "lm_head.weight" not in model.tensors


def test_a_checkpoint_of_the_trainer(holds, copied):
    """checkpoint-30/global_step30 with ``latest``, configuration and tokenizer beside it; other steps are not read."""
    root = copied("zero3", "checkpoint-1")
    (root / "config.json").write_text('{"model_type": "tiny"}')
    (root / "zero_to_fp32.py").write_text("raise SystemExit('never run')")
    (root / "global_step0").mkdir()
    (root / "global_step0" / model_file(0)).write_bytes(b"never read")
    for folder in (root, root / "global_step1"):
        assert holds(folder).config == {"model_type": "tiny"}
    (root / "latest").unlink()
    with pytest.raises(CheckpointError, match=r"Did you mean '.*/global_step1', the last of 2 below it"):
        open_checkpoint(root)


@pytest.mark.parametrize("tag", ["../elsewhere", "/etc", "global_step9", "", "a\0b", "latest"])
def test_a_tag_that_leads_elsewhere(copied, tag):
    root = copied("zero3")
    (root / "latest").write_text(tag)
    with pytest.raises(CheckpointError, match=r"holds no weights(?s:.*)global_step1"):
        open_checkpoint(root)


def test_openrlhf_puts_them_in_a_folder(holds, copied):
    holds(copied("zero2", "ckpt/_actor").parent)


def test_zero_2_worked_example(tmp_path):
    """Parameters of 5 and 4 elements over 2 processes, padded to a multiple of 4: 0 1 2 3 4 10 | 11 12 13 0 0 0."""
    flat = np.concatenate([values(5), values(4, first=10), np.zeros(3, "<f4")])
    root = write(tmp_path, 2, [[flat[:6]], [flat[6:]]], [{"a": (5,), "b": (2, 2)}])
    tensors = open_checkpoint(root).tensors
    assert tensors["a"].read().tolist() == [0, 1, 2, 3, 4]
    assert tensors["b"].read().tolist() == [10, 11, 12, 13]
    assert tensors["b"].shape == (2, 2)
    assert not tensors["a"].read().flags.owndata


def test_zero_2_with_gaps_between_parameters(tmp_path):
    flat = np.concatenate([values(3), np.full(1, -1, "<f4"), values(4, first=10)])
    root = write(tmp_path, 2, [[flat]], [{"a": (3,), "b": (4,)}], param_alignment_paddings=[[1, 0]])
    assert open_checkpoint(root).tensors["b"].read().tolist() == [10, 11, 12, 13]


def test_zero_3_worked_example(tmp_path):
    """5 elements over 2 processes are 3 and 2, the last padded; then 1 element, all of it on the first."""
    first = np.array([0, 1, 2, 7], "<f4")
    second = np.array([3, 4, -1, -1], "<f4")
    root = write(tmp_path, 3, [[first], [second]], [{"a": (5,)}, {"b": (1, 1)}])
    tensors = open_checkpoint(root).tensors
    assert tensors["a"].read().tolist() == [0, 1, 2, 3, 4]
    assert tensors["b"].read().tolist() == [7]


def test_zero_3_in_several_groups(tmp_path):
    """A parameter may lie across two of a process's flat groups."""
    root = write(tmp_path, 3, [[values(2), values(4, first=2)]], [{"a": (3,), "b": (3,)}])
    assert open_checkpoint(root).tensors["b"].read().tolist() == [3, 4, 5]


def test_frozen_parameters_buffers_and_shared_ones(tmp_path):
    more = {
        "frozen_param_shapes": {"frozen": size(2, 2)},
        "frozen_param_fragments": {"frozen": Tensor(values(2, 2, first=50).astype("<f2"))},
        "buffer_names": ["scale"],
        "module": {"scale": Tensor(values(2)), "a": Tensor(values(3))},
        "shared_params": {"again": "a"},
    }
    root = write(tmp_path, 2, [[values(4)]], [{"a": (3,)}], of_model=more)
    tensors = open_checkpoint(root).tensors
    assert set(tensors) == {"a", "frozen", "scale", "again"}
    assert tensors["frozen"].read().tolist() == [50, 51, 52, 53]
    assert tensors["frozen"].dtype.name == "float16"
    assert tensors["again"].read().tolist() == [0, 1, 2]


@pytest.mark.parametrize("rank", range(3))
@pytest.mark.parametrize("file", [optimizer, model_file])
def test_a_file_is_missing(copied, file, rank):
    root = copied("zero3")
    (root / "global_step1" / file(rank)).unlink()
    with pytest.raises(CheckpointError, match=r"lacks the|one of 3 optimizer files|2 model files") as caught:
        open_checkpoint(root)
    assert "copy those of all nodes" in caught.value.hint


def test_files_of_two_stages(copied, fixtures):
    root = copied("zero3") / "global_step1"
    shutil.copy(fixtures / "zero2/global_step1" / optimizer(1), root / optimizer(1))
    with pytest.raises(CheckpointError, match=r"holds no float32 weights of ZeRO|one of 3 optimizer files"):
        open_checkpoint(root)


def test_without_optimizer_files(copied):
    """ZeRO-2 keeps the weights it ran with whole, ZeRO-3 keeps none."""
    root = copied("zero2") / "global_step1"
    for rank in range(3):
        (root / optimizer(rank)).unlink()
    model = open_checkpoint(root)
    assert model.tensors["model.norm.weight"].read().tolist() == [9000, 9001, 9002, 9003, 9004, 9005]
    assert "has no optimizer files" in model.warnings[0]
    root = copied("zero3", "other") / "global_step1"
    for rank in range(3):
        (root / optimizer(rank)).unlink()
    with pytest.raises(CheckpointError, match="lacks the optimizer files"):
        open_checkpoint(root)


@pytest.mark.parametrize(
    ("stage", "groups", "shapes", "more", "message"),
    [
        (2, [[values(4)]], [{"a": (7,)}], {}, "only 4 of its 7 elements"),
        (2, [[values(9)]], [{"a": (4,)}], {}, "its parameters take 4 elements of vectors of 9"),
        (3, [[values(4)]], [{"a": (3,)}], {}, "its parameters take 3 elements of vectors of 4"),
        (3, [[values(4)], [values(3)]], [{"a": (8,)}], {}, "only 7 of its 8 elements"),
        (2, [[values(4)]], [{"a": (2,)}, {"b": (2,)}], {}, "describes 2 groups of parameters, but its optimizer has 1"),
        (2, [[values(4)], []], [{"a": (4,)}], {}, "holds no float32 weights of ZeRO"),
        (2, [[values(2, 2)]], [{"a": (4,)}], {}, "holds no float32 weights of ZeRO"),
        (2, [[values(4)]], [{"a": (4,)}], {"zero_stage": 0}, "holds no ZeRO optimizer state"),
        (2, [[values(4)]], [{"a": (4,)}], {"zero_stage": None}, "holds no ZeRO optimizer state"),
        (2, [[values(4)]], [{"a": (4,)}], {"zero_stage": 4}, "is of ZeRO stage 4"),
        (2, [[values(4)]], [{"a": (4,)}], {"partition_count": 2}, "one of 2 optimizer files .* 1 are here"),
        (2, [[values(4)]], [{"a": (4,)}], {"partition_count": [1, 2]}, "one of 2 optimizer files"),
        (2, [[values(4)]], [{"a": (4,)}], {"of_model": {"param_shapes": 3}}, "is no file of a ZeRO checkpoint"),
        (2, [[values(4)]], [{"a": (4,)}], {"of_model": {"param_shapes": {"a": -1}}}, "in an unknown form"),
        (2, [[values(4)]], [{"a": (4,)}], {"of_model": {"frozen_param_shapes": {"b": (2,)}}}, "no file of a ZeRO"),
        (2, [[values(4)]], [{"base_model.model.lora_A.weight": (4,)}], {}, "holds a LoRA adapter"),
    ],
)
def test_what_does_not_fit(tmp_path, stage, groups, shapes, more, message):
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(write(tmp_path, stage, groups, shapes, **more))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mp_rank_01_model_states.pt", "tensor or pipeline parallelism"),
        ("zero_pp_rank_0_mp_rank_01_optim_states.pt", "tensor or pipeline parallelism"),
        ("layer_03-model_00-model_states.pt", "tensor or pipeline parallelism"),
        ("layer_0_expert_3_mp_rank_00_model_states.pt", "experts that DeepSpeed spreads over processes"),
        ("expp_rank_0_mp_rank_00_optim_states.pt", "experts that DeepSpeed spreads over processes"),
    ],
)
def test_other_ways_to_cut(copied, name, message):
    root = copied("zero2") / "global_step1"
    (root / name).write_bytes(b"never read")
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(root)
