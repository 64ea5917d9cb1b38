import json
import shutil

import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.errors import CheckpointError, RunError
from rlmerge.kernels.dtypes import FLOAT32
from support.torchfiles import Obj, Tensor, dtensor, mesh, replicate, save, shard, wrapped

FORMS = ["fsdp1", "fsdp1-sharded-tensor", "fsdp2", "fsdp2-tp", "hsdp"]


def name(rank, world=4):
    return f"model_world_size_{world}_rank_{rank}.pt"


def values(*shape):
    return np.arange(np.prod(shape), dtype="<f4").reshape(shape)


def write(root, states):
    for rank, state in enumerate(states):
        save(root / name(rank, len(states)), state)
    return root


def half(array, axis, index, placements, on):
    """The first or second half along an axis, cut as torch.chunk does, as a DTensor on a mesh."""
    piece = np.array_split(array, [-(-array.shape[axis] // 2)], axis)[index]
    return dtensor(Tensor(np.ascontiguousarray(piece)), array.shape, placements, on)


def halves(array, axis=0):
    """A tensor in two DTensor shards of torch < 2.9."""
    return [half(array, axis, rank, [shard(axis)], mesh([0, 1], rank)) for rank in range(2)]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_model(holds, fixtures, form):
    model = holds(fixtures / form)
    assert model.format == "FSDP rank files"
    assert {source.dtype for source in model.tensors.values()} == {FLOAT32}
    assert "lm_head.weight" not in model.tensors


def test_shards_of_rows_are_read_in_place(fixtures):
    """8 rows of 6 over 4 processes: elements 12 to 24 lie in one file."""
    source = open_checkpoint(fixtures / "fsdp2").tensors["model.layers.0.self_attn.q_proj.weight"]
    assert not source.read(12, 24).flags.owndata
    assert source.read(11, 24).flags.owndata
    assert source.scratch.per_element == 4
    assert len(source.files) == 4
    assert source.where == f"{fixtures / 'fsdp2'}: model.layers.0.self_attn.q_proj.weight"


def test_the_fingerprint_is_that_of_the_same_weights_in_one_file(fixtures, reference, tmp_path, write_tensors):
    write_tensors(tmp_path / "whole.safetensors", {"w": [1, 2, 3]})
    flat = {name: value.reshape(-1).tolist() for name, value in reference.items() if value.ndim == 1}
    write_tensors(tmp_path / "model.safetensors", flat)
    sharded = open_checkpoint(fixtures / "fsdp2").tensors
    for key, whole in open_checkpoint(tmp_path).tensors.items():
        assert sharded[key].fingerprint(True) == whole.fingerprint(True)


@pytest.fixture
def run(copied):
    """global_step_5/actor as verl leaves it, with configuration and tokenizer in huggingface/."""
    actor = copied("fsdp2", "run/global_step_5/actor")
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": 4}))
    (actor / "huggingface").mkdir()
    (actor / "huggingface/config.json").write_text(json.dumps({"model_type": "tiny", "tie_word_embeddings": True}))
    (actor / "huggingface/tokenizer.json").write_text("{}")
    return actor.parents[1]


@pytest.mark.parametrize("below", ["global_step_5/actor", "global_step_5"])
def test_a_run_of_verl(holds, run, below):
    (run / "global_step_5/data.pt").write_bytes(b"never read")
    critic = shutil.copytree(run / "global_step_5/actor", run / "global_step_5/critic")
    (critic / name(0)).write_bytes(b"never read")
    model = holds(run / below)
    assert model.path == run / below
    assert model.config == {"model_type": "tiny", "tie_word_embeddings": True}
    assert [path.name for path in model.side_files] == ["config.json", "tokenizer.json"]
    assert model.warnings == ()


def test_two_models_below_are_not_chosen_between(run):
    shutil.copytree(run / "global_step_5/actor", run / "global_step_5/policy")
    with pytest.raises(CheckpointError, match=r"holds no weights(?s:.*)Did you mean '.*/policy', the last of 2"):
        open_checkpoint(run / "global_step_5")


def test_the_run_itself_names_its_last_step(run):
    shutil.copytree(run / "global_step_5", run / "global_step_40")
    shutil.copytree(run / "global_step_5", run / "global_step_100")
    with pytest.raises(CheckpointError, match=r"Did you mean '.*/global_step_100', the last of 3 below it"):
        open_checkpoint(run)


@pytest.mark.parametrize("rank", range(4))
def test_a_rank_is_missing(copied, rank):
    root = copied("fsdp2")
    (root / name(rank)).unlink()
    with pytest.raises(CheckpointError, match=f"{root}: lacks rank {rank}; it holds 3 of 4 rank files"):
        open_checkpoint(root)


def test_ranks_that_cannot_be(copied):
    root = copied("fsdp2")
    shutil.copy(root / name(0), root / name(4))
    with pytest.raises(CheckpointError, match="holds 5 rank files of 4 ranks"):
        open_checkpoint(root)
    (root / name(4)).rename(root / f"model_world_size_{10**30}_rank_{10**29}.pt")
    for rank in range(4):
        (root / name(rank)).unlink()
    with pytest.raises(CheckpointError, match=f"lacks rank 0; it holds 1 of {10**30}"):
        open_checkpoint(root)


def test_two_world_sizes(copied):
    root = copied("fsdp2")
    shutil.copy(root / name(0), root / name(0, 2))
    with pytest.raises(CheckpointError, match="holds rank files of 2 and of 4 processes"):
        open_checkpoint(root)


def test_a_recorded_world_size(run):
    (run / "global_step_5/actor/fsdp_config.json").write_text('{"world_size": 8}')
    with pytest.raises(CheckpointError, match=r"says that 8 processes saved this checkpoint, but .* of 4"):
        open_checkpoint(run / "global_step_5")


@pytest.mark.parametrize("form", FORMS)
def test_files_with_their_names_exchanged(copied, form):
    root = copied(form)
    (root / name(0)).rename(root / "x")
    (root / name(1)).rename(root / name(0))
    (root / "x").rename(root / name(1))
    with pytest.raises(CheckpointError, match=r"was written by rank 1, not 0(?s:.*)mixed or renamed"):
        open_checkpoint(root)


def test_shards_of_another_mesh(copied, fixtures):
    """FSDP over 4 and over 2 × 2 leave different shapes to a process, whichever files are mixed."""
    for theirs, ours in (("hsdp", "fsdp2"), ("fsdp2", "fsdp2-tp"), ("fsdp2-tp", "hsdp")):
        root = copied(theirs, f"{theirs}-{ours}")
        shutil.copy(fixtures / ours / name(2), root / name(2))
        with pytest.raises(CheckpointError, match=r"its parts overlap|elements are there|is no part of"):
            open_checkpoint(root)


def test_a_file_of_a_larger_model(tmp_path):
    first, second = {"w": halves(values(4, 2))[0]}, {"w": halves(values(6, 2))[1]}
    with pytest.raises(CheckpointError, match=r"rank_1.pt: w: is part of \[6, 2\], where .*rank_0.pt: w is part of"):
        open_checkpoint(write(tmp_path, [first, second]))


def test_meshes_as_older_versions_of_torch_save_them(tmp_path):
    rows, columns = values(5, 3), values(3, 5)
    grid = [[0, 1], [2, 3]]
    quarters = [values(4, 2)[i // 2 * 2 : i // 2 * 2 + 2, i % 2 : i % 2 + 1] for i in range(4)]
    states = [
        {
            "rows": half(rows, 0, rank // 2, [shard(0), replicate()], mesh(grid, rank)),
            "columns": half(columns, 1, rank % 2, [replicate(), shard(1)], mesh(grid, rank)),
            "both": dtensor(
                Tensor(np.ascontiguousarray(quarters[rank])), (4, 2), [shard(0), shard(1)], mesh(grid, rank)
            ),
        }
        for rank in range(4)
    ]
    tensors = open_checkpoint(write(tmp_path, states)).tensors
    np.testing.assert_array_equal(tensors["rows"].read(), rows.reshape(-1))
    np.testing.assert_array_equal(tensors["columns"].read(), columns.reshape(-1))
    np.testing.assert_array_equal(tensors["both"].read(), values(4, 2).reshape(-1))


def test_module_paths_of_torch_before_2_5(tmp_path):
    states = []
    for local in halves(values(4, 2)):
        state = local.args[3]
        old = "torch.distributed._tensor"
        spec = Obj(f"{old}.placement_types", "DTensorSpec", state={
            **state["_spec"].state,
            "placements": (Obj(f"{old}.placement_types", "Shard", state={"dim": 0}),),
            "tensor_meta": Obj(f"{old}.placement_types", "TensorMeta", (), {
                "shape": Obj("torch", "Size", ((4, 2),), called=True), "stride": (2, 1), "dtype": None,
            }),
        })  # fmt: skip
        states.append({"w": wrapped(f"{old}.api", "DTensor", {**state, "_spec": spec})})
    assert open_checkpoint(write(tmp_path, states)).tensors["w"].read().tolist() == list(range(8))


def test_one_process(tmp_path):
    root = write(tmp_path, [{"w": Tensor(values(3, 2)), "b": Tensor(values(2))}])
    assert open_checkpoint(root).tensors["w"].read().tolist() == list(range(6))


def test_copies_on_every_rank(tmp_path):
    """Buffers have no placement: equal on all ranks, one counts; otherwise nothing says what they are."""
    root = write(tmp_path / "same", [{"b": Tensor(values(4))}, {"b": Tensor(values(4))}])
    assert open_checkpoint(root).tensors["b"].read().tolist() == [0, 1, 2, 3]
    root = write(tmp_path / "other", [{"b": Tensor(values(4))}, {"b": Tensor(values(4) + 1)}])
    with pytest.raises(CheckpointError, match=r"rank_1.pt: b: is on every rank, but with other values"):
        open_checkpoint(root)


def test_a_tensor_that_only_one_rank_has(tmp_path):
    """As under pipeline parallelism; but a shard alone is not a tensor."""
    first, second = halves(values(4, 2))
    states = [{"w": first, "a": Tensor(values(2))}, {"w": second}]
    assert set(open_checkpoint(write(tmp_path / "ok", states)).tensors) == {"w", "a"}
    with pytest.raises(CheckpointError, match="only 4 of its 8 elements are there"):
        open_checkpoint(write(tmp_path / "half", [{"w": first, "a": Tensor(values(2))}, {"a": Tensor(values(2))}]))


@pytest.mark.parametrize(
    ("config", "head", "kept"),
    [
        (None, 0, False),
        ({"tie_word_embeddings": True}, 0, False),
        ({"text_config": {"tie_word_embeddings": True}}, 0, False),
        ({"tie_word_embeddings": False}, 0, True),
        ({"tie_word_embeddings": True}, 1, True),
        (None, 1, True),
    ],
)
def test_a_head_that_repeats_the_embedding(tmp_path, config, head, kept):
    """``head`` is added to its last element: only equal bits are a tied head."""
    other = values(4, 2).copy()
    other[-1, -1] += head
    names = ("model.embed_tokens.weight", "lm_head.weight")
    embedding, output = halves(values(4, 2)), halves(other)
    states = [dict(zip(names, pair, strict=True)) for pair in zip(embedding, output, strict=True)]
    root = write(tmp_path, states)
    if config is not None:
        (root / "config.json").write_text(json.dumps(config))
    assert ("lm_head.weight" in open_checkpoint(root).tensors) is kept


def test_names_without_the_modules_put_around(tmp_path):
    state = {"module._orig_mod.model.layers.0._fsdp_wrapped_module.w": Tensor(values(2))}
    assert list(open_checkpoint(write(tmp_path, [state])).tensors) == ["model.layers.0.w"]
    state |= {"module.model.layers.0.w": Tensor(values(2))}
    with pytest.raises(CheckpointError, match=r"another tensor are both 'model.layers.0.w' of the model"):
        open_checkpoint(write(tmp_path, [state]))


@pytest.mark.parametrize("key", ["state_dict", "model", "module"])
def test_a_state_dict_inside_another_dictionary(tmp_path, key):
    state = {key: {"w": Tensor(values(2))}, "epoch": 3}
    assert list(open_checkpoint(write(tmp_path, [state])).tensors) == ["w"]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"model._flat_param": Tensor(values(2))}, "is a flattened parameter of FSDP"),
        ({"_fsdp_wrapped_module.flat_param_0": Tensor(values(2))}, "is a flattened parameter of FSDP"),
        ({"w": 3}, "w: is no tensor"),
        ({"w": Obj("torch", "device", ("cpu",), called=True)}, "w: is no tensor"),
        ({"w\n": Tensor(values(2))}, "control characters"),
        ({"w": None}, "holds no tensors of a model"),
        ({}, "holds no state dict of a model"),
        ([1], "holds no state dict of a model"),
        ({1: Tensor(values(2))}, "holds no state dict of a model"),
        ({"w": wrapped("torch.distributed.tensor", "DTensor", {})}, "a distributed tensor of an unknown form"),
        ({"w": wrapped("torch.distributed._shard.sharded_tensor.api", "ShardedTensor", ())}, "of an unknown form"),
        ({"w": dtensor(Tensor(values(3)), (4,), [shard(0)], mesh([0], 0))}, r"is \[3\], where its placement of \[4\]"),
        ({"w": dtensor(Tensor(values(4)), (4,), [shard(0)], mesh([1]))}, "a mesh of the ranks 1; 1 rank files"),
    ],
)  # fmt: skip
def test_what_is_no_model(tmp_path, state, message):
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(write(tmp_path, [state]))


def test_two_types(tmp_path):
    first, second = halves(values(4, 2))
    second.args[3]["_local_tensor"] = Tensor(values(2, 2).astype("<f2"))
    with pytest.raises(CheckpointError, match=r"rank_1.pt: w: holds float16 where .*rank_0.pt: w holds float32"):
        open_checkpoint(write(tmp_path, [{"w": first}, {"w": second}]))


def test_a_file_that_changes_after_it_was_opened(copied):
    root = copied("fsdp2")
    model = open_checkpoint(root)
    (root / name(2)).write_bytes((root / name(2)).read_bytes())
    with pytest.raises(RunError, match=r"rank_2\.pt: has changed since it was opened"):
        model.tensors["model.layers.0.self_attn.q_proj.weight"].read()
