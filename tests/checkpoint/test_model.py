import json
import os

import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.errors import CheckpointError


def test_two_shards(two_shards):
    model = open_checkpoint(two_shards)
    assert list(model.tensors) == ["x", "y", "z"]
    assert [model.tensors[name].file.path.name for name in "xyz"] == ["a.safetensors", "a.safetensors", "b.safetensors"]
    assert model.reference == str(two_shards)
    assert model.path == two_shards.resolve()
    assert model.revision is None
    assert model.nbytes == 6 * 4
    assert model.config == {"model_type": "llama"}
    assert [path.name for path in model.side_files] == ["config.json"]
    assert model.warnings == ()


def test_a_single_file_without_configuration(tmp_path, write_tensors):
    write_tensors(tmp_path / "model.safetensors", {"w": [1]})
    model = open_checkpoint(str(tmp_path))
    assert model.config is None
    assert "no config.json" in model.warnings[0]


def test_home_directory_and_links_to_the_model_directory(two_shards, monkeypatch):
    monkeypatch.setenv("HOME", str(two_shards.parent))
    (two_shards.parent / "alias").symlink_to(two_shards)
    model = open_checkpoint("~/alias")
    assert (model.reference, model.path) == ("~/alias", two_shards.resolve())


def test_fingerprint_is_of_the_weights_and_computed_once(two_shards, tmp_path, write_tensors):
    (tmp_path / "single").mkdir()
    write_tensors(tmp_path / "single/model.safetensors", {"x": [1, 2, 3], "y": [4], "z": [5, 6]})
    model = open_checkpoint(two_shards)
    assert model.fingerprint() == open_checkpoint(tmp_path / "single").fingerprint()
    for file in two_shards.glob("*.safetensors"):
        file.unlink()
    assert model.fingerprint() == open_checkpoint(tmp_path / "single").fingerprint()


@pytest.mark.parametrize(
    ("config", "names", "tied"),
    [
        ({"tie_word_embeddings": True}, ["embed", "lm_head.weight"], True),
        ({"tie_word_embeddings": False}, ["embed"], False),
        ({"text_config": {"tie_word_embeddings": True}}, ["embed", "lm_head.weight"], True),
        ({}, ["embed"], True),
        ({}, ["embed", "model.lm_head.weight"], False),
    ],
)
def test_tied_embeddings(tmp_path, write_tensors, config, names, tied):
    write_tensors(tmp_path / "model.safetensors", {name: [1] for name in names})
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert open_checkpoint(tmp_path).tied_embeddings is tied


def test_a_shard_of_the_index_is_missing(two_shards):
    (two_shards / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"b\.safetensors: does not exist"):
        open_checkpoint(two_shards)


def test_a_truncated_shard(two_shards):
    os.truncate(two_shards / "b.safetensors", (two_shards / "b.safetensors").stat().st_size - 1)
    with pytest.raises(CheckpointError, match=r"b\.safetensors: is truncated"):
        open_checkpoint(two_shards)


def test_a_tensor_of_the_index_is_missing(two_shards, write_tensors):
    write_tensors(two_shards / "a.safetensors", {"x": [1, 2, 3]})
    with pytest.raises(CheckpointError, match=r"a\.safetensors: lacks tensor 'y', .* \(1 missing in all\)"):
        open_checkpoint(two_shards)


def test_a_tensor_in_two_shards(two_shards, write_tensors):
    write_tensors(two_shards / "b.safetensors", {"x": [1, 2, 3], "z": [5, 6]})
    with pytest.raises(CheckpointError, match=r"b\.safetensors: tensor 'x' is also in a\.safetensors"):
        open_checkpoint(two_shards)


def test_a_tensor_that_the_index_does_not_list(two_shards, write_tensors):
    write_tensors(two_shards / "b.safetensors", {"z": [5, 6], "extra": [1]})
    model = open_checkpoint(two_shards)
    assert "extra" in model.tensors
    assert "holds 1 tensors that model.safetensors.index.json does not list, such as 'extra'" in model.warnings[0]


def test_a_shard_that_links_out_of_the_directory(two_shards):
    (two_shards / "b.safetensors").rename(two_shards.parent / "b.safetensors")
    (two_shards / "b.safetensors").symlink_to("../b.safetensors")
    with pytest.raises(CheckpointError, match="outside the model directory"):
        open_checkpoint(two_shards)


def test_a_single_file_that_links_out_of_the_directory(tmp_path, write_tensors):
    (tmp_path / "model").mkdir()
    write_tensors(tmp_path / "elsewhere", {"w": [1]})
    (tmp_path / "model/model.safetensors").symlink_to("../elsewhere")
    with pytest.raises(CheckpointError, match="outside the model directory"):
        open_checkpoint(tmp_path / "model")


def test_a_sparse_delta_in_disguise(tmp_path, write_tensors):
    write_tensors(tmp_path / "model.safetensors", {"w": [1]}, {"format": "pt", "delta_encoding": "xor-zstd"})
    with pytest.raises(
        CheckpointError, match=r"sparse weight delta \(delta_encoding: 'xor-zstd'\)(?s:.*)Apply the delta"
    ):
        open_checkpoint(tmp_path)


def test_a_file_without_tensors(tmp_path, write_tensors):
    write_tensors(tmp_path / "model.safetensors", {})
    with pytest.raises(CheckpointError, match="hold no tensors"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"), [("[]", "must hold a JSON object"), ("{", "not valid JSON"), ("\0", "not valid JSON")]
)
def test_a_broken_configuration(two_shards, content, message):
    (two_shards / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=rf"config\.json: .*{message}"):
        open_checkpoint(two_shards)


def test_what_is_not_a_directory(two_shards):
    file = two_shards / "a.safetensors"
    with pytest.raises(CheckpointError, match=f"is a file, not a model directory\n  .*'{two_shards}'"):
        open_checkpoint(file)
    for reference in (str(two_shards / "absent"), "/nowhere/at/all", "", "a\0b"):
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(reference)
        assert caught.value.exit_code == 2


def test_a_revision_of_a_local_directory(two_shards):
    with pytest.raises(CheckpointError, match="a local directory, which has no revisions"):
        open_checkpoint(two_shards, revision="main")


def test_no_permission(common_folder, ordinary_user, write_tensors):
    root = common_folder / "model"
    root.mkdir()
    write_tensors(root / "model.safetensors", {"w": [1]}).chmod(0)
    with ordinary_user(), pytest.raises(CheckpointError, match=r"model\.safetensors: may not be read"):
        open_checkpoint(root)
    root.chmod(0o700)
    with ordinary_user(), pytest.raises(CheckpointError, match="model: may not be read"):
        open_checkpoint(root)
    with ordinary_user(), pytest.raises(CheckpointError, match="may not be read"):
        open_checkpoint(root / "deeper")


def test_a_missing_path_of_three_parts_is_no_matter_of_the_hub(tmp_path, monkeypatch):
    """Its first folder is here, so that nobody is asked whether there is a repository of that name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr("rlmerge.checkpoint.hub.fetch", lambda *_: pytest.fail("the Hub was asked"))
    with pytest.raises(CheckpointError, match="no such directory") as error:
        open_checkpoint("runs/grpo/step-20")
    assert error.value.where == "runs/grpo/step-20" and "Check the path" in error.value.hint


def test_a_path_of_three_parts_that_is_nowhere(tmp_path, monkeypatch):
    def fetch(model, revision):
        raise CheckpointError("neither a directory here nor a repository on the Hub", where=model)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rlmerge.checkpoint.hub.fetch", fetch)
    with pytest.raises(CheckpointError, match="no such directory"):
        open_checkpoint("runs/grpo/step-20")
    with pytest.raises(CheckpointError, match="neither a directory here nor a repository"):
        open_checkpoint("runs/grpo")
