import re

import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.directory import INDEX, SINGLE, entries
from rlmerge.checkpoint.no_weights import holds_weights, models_below, no_weights
from rlmerge.errors import CheckpointError


def directory(root, *names):
    root.mkdir(exist_ok=True)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["consolidated.00.pth", "params.json"], r"as their maker released them(?s:.*)Hugging Face form"),
        (["lightning.ckpt"], r"pickle \(lightning.ckpt\)(?s:.*)safe_serialization=True"),
        (["adapter_config.json", "adapter_model.safetensors"], "LoRA adapter(?s:.*)merge_and_unload"),
        (["adapter_config.json", "adapter_model.bin"], "LoRA adapter"),
        (["model-q4.gguf"], "GGUF"),
        (["config.json", "tokenizer.json"], f"holds no weights(?s:.*){SINGLE} or {INDEX}"),
        (["optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin"], "holds no weights"),
        ([], "holds no weights"),
        (["checkpoint-500/model.safetensors", "runs/log"], r"Did you mean '.*/run/checkpoint-500'\?"),
        (["runs/best/model.safetensors.index.json"], r"Did you mean '.*/run/runs/best'\?"),
        (["a/b/c/model.safetensors"], f"A model directory holds {SINGLE}"),
        ([".hidden/model.safetensors"], f"A model directory holds {SINGLE}"),
    ],
)
def test_why_there_is_nothing_to_merge(tmp_path, names, message):
    root = directory(tmp_path / "run", *names)
    error = no_weights(root, entries(root))
    assert error.where == str(root)
    assert re.search(message, str(error))


@pytest.mark.parametrize(
    "names",
    [
        ["iter_0000100/common.pt", "latest_checkpointed_iteration.txt"],
        ["common.pt", "metadata.json", ".metadata", "__0_0.distcp"],
        ["mp_rank_00/model_optim_rng.pt"],
        ["mp_rank_00_001/model_optim_rng.pt"],
        ["model/dist_ckpt/common.pt", "huggingface/config.json"],
        ["dist_ckpt/common.pt"],
    ],
)
def test_megatron(tmp_path, names):
    with pytest.raises(CheckpointError, match=r"holds a Megatron checkpoint(?s:.*)convert_torch_dist_to_hf"):
        open_checkpoint(directory(tmp_path, *names))


def test_the_last_step_is_the_highest_number(tmp_path):
    steps = [f"checkpoint-{n}" for n in (500, 1000, 1500, 90)]
    root = directory(tmp_path, *(f"{step}/{SINGLE}" for step in steps))
    assert [path.name for path in models_below(root, entries(root))] == sorted(steps, key=lambda x: int(x[11:]))
    with pytest.raises(CheckpointError, match=r"Did you mean '.*/checkpoint-1500', the last of 4 below it\?"):
        open_checkpoint(root)


def test_what_lies_nearer_comes_first(tmp_path):
    root = directory(tmp_path, f"step-2/{SINGLE}", f"runs/step-9/{SINGLE}")
    assert [path.relative_to(root).as_posix() for path in models_below(root, entries(root))] == [
        "runs/step-9",
        "step-2",
    ]


def test_checkpoints_of_other_formats_count(tmp_path):
    for step in (9, 10):
        directory(tmp_path, f"run/global_step_{step}/actor/model_world_size_1_rank_0.pt")
    directory(tmp_path, "acc/checkpoint-3/pytorch_model_fsdp_0/__0_0.distcp", "bin/checkpoint-3/pytorch_model.bin")
    for root, best in (("run", "global_step_10"), ("acc", "checkpoint-3"), ("bin", "checkpoint-3")):
        with pytest.raises(CheckpointError, match=f"Did you mean '{tmp_path}/{root}/{best}'"):
            open_checkpoint(tmp_path / root)


def test_the_configuration_beside_the_weights(tmp_path):
    actor = directory(tmp_path, "actor/model_world_size_1_rank_0.pt", "actor/huggingface/config.json") / "actor"
    with pytest.raises(CheckpointError, match=f"Did you mean '{actor}'"):
        open_checkpoint(actor / "huggingface")


def test_a_folder_that_may_not_be_listed(common_folder, ordinary_user):
    directory(common_folder / "run", f"closed/{SINGLE}", f"open/{SINGLE}")
    (common_folder / "run/closed").chmod(0o700)
    with ordinary_user():
        assert not holds_weights(common_folder / "run/closed")
        with pytest.raises(CheckpointError, match=r"Did you mean '.*/open'"):
            open_checkpoint(common_folder / "run")
