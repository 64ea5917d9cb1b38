import hashlib
import json
import os

import pytest

from rlmerge.checkpoint import read_header, verify
from rlmerge.errors import CheckpointError


def flip(file, position):
    octets = bytearray(file.read_bytes())
    octets[position] ^= 0x10
    file.write_bytes(octets)


def test_a_sound_directory(sealed, plan, tree):
    _, values = plan
    read = []
    result = verify(str(sealed), advance=read.append)
    assert result.ok and result.problems == ()
    assert (result.files, result.tensors) == (5, 3)
    assert result.bytes == sum(len(content) for name, content in tree(sealed).items() if name != "MANIFEST.json")
    assert sum(read) >= sum(value.size for value in values.values())


@pytest.mark.parametrize("name", ["embed", "norm", "head"])
@pytest.mark.parametrize("end", ["first", "last"])
def test_a_flipped_bit_is_found_and_its_tensor_named(sealed, plan, name, end):
    shards, _ = plan
    file = next(sealed / shard.name for shard in shards if name in [tensor.name for tensor in shard.tensors])
    tensor = read_header(file).tensors[name]
    flip(file, tensor.start if end == "first" else tensor.stop - 1)
    assert verify(sealed).problems == (f"{file.name}: tensor {name!r} was altered (xxh3 differs)",)


def test_an_altered_header(sealed, plan):
    file = sealed / plan[0][0].name
    octets = file.read_bytes()
    file.write_bytes(octets.replace(b'"pt"', b'"tf"'))
    assert verify(sealed).problems == (f"{file.name}: its header was altered (BLAKE3 differs)",)


def test_a_renamed_and_a_reshaped_tensor(sealed, plan):
    file = sealed / plan[0][0].name
    octets = file.read_bytes()
    file.write_bytes(octets.replace(b'"norm"', b'"mron"'))
    assert verify(sealed).problems == (
        f"{file.name}: tensor 'norm' is missing",
        f"{file.name}: tensor 'mron' was added",
    )
    file.write_bytes(octets.replace(b"[10,8]", b"[8,10]"))
    assert verify(sealed).problems == (f"{file.name}: tensor 'embed' has another type or shape",)


def test_a_header_that_is_no_longer_sound(sealed, plan):
    file = sealed / plan[0][0].name
    flip(file, 8)
    assert verify(sealed).problems == (f"{file.name}: does not start with a safetensors header",)


def test_missing_extra_and_altered_files(sealed):
    (sealed / "model.safetensors.index.json").unlink()
    (sealed / "extra.safetensors").write_bytes(b"x")
    (sealed / "sub").mkdir()
    (sealed / "sub/run.py").write_text("x")
    (sealed / ".cache").mkdir()
    (sealed / ".cache/state").write_text("x")
    (sealed / ".gitattributes").write_text("x")
    flip(sealed / "config.json", 2)
    assert verify(sealed).problems == (
        "config.json: its content was altered (BLAKE3 differs)",
        "model.safetensors.index.json: is missing",
        "extra.safetensors: is not in MANIFEST.json",
        "sub/run.py: is not in MANIFEST.json",
    )


def test_another_length(sealed, plan):
    file = sealed / plan[0][1].name
    size = file.stat().st_size
    os.truncate(file, size - 1)
    (sealed / "config.json").write_bytes(b"{}")
    assert verify(sealed).problems == (
        "config.json: is 2 bytes long, not 8",
        f"{file.name}: is {size - 1} bytes long, not {size}",
    )


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b"])
def test_a_manifest_that_points_elsewhere(sealed, name):
    content = json.loads((sealed / "MANIFEST.json").read_text())
    content["files"][name] = {"blake3": "", "bytes": 1}
    (sealed / "MANIFEST.json").write_text(json.dumps(content))
    assert verify(sealed).problems == (f"{name}: {name!r} is not a plain file name",)


def test_a_file_that_became_a_link_to_elsewhere(sealed):
    (sealed / "config.json").rename(sealed.parent / "config.json")
    (sealed / "config.json").symlink_to("../config.json")
    [problem] = verify(sealed).problems
    assert problem.startswith("config.json: is a link to")


def test_a_tensor_whose_file_the_manifest_does_not_list(sealed):
    content = json.loads((sealed / "MANIFEST.json").read_text())
    content["tensors"]["ghost"] = {"file": "ghost.safetensors", "dtype": "F32", "shape": [1], "xxh3": ""}
    (sealed / "MANIFEST.json").write_text(json.dumps(content))
    assert verify(sealed).problems == ("ghost.safetensors: has tensors in MANIFEST.json but is not listed there",)


def test_an_unreadable_file(sealed, common_folder, ordinary_user):
    copy = common_folder / "out"
    sealed.rename(copy)
    (copy / "config.json").chmod(0)
    with ordinary_user():
        [problem] = verify(copy).problems
    assert "config.json: may not be read (permission denied)" in problem


def test_a_directory_that_is_not_ours(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no MANIFEST\.json"):
        verify(tmp_path)


def as_first_format(folder):
    """Rewrite the manifest as the first format had it."""
    content = json.loads((folder / "MANIFEST.json").read_text())
    content["format_version"] = 1
    for name, record in content["files"].items():
        del record["blake3"]
        record["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "MANIFEST.json").write_text(json.dumps(content))


def test_a_manifest_of_the_first_format_still_counts(sealed, plan):
    as_first_format(sealed)
    assert verify(sealed).ok
    flip(sealed / "config.json", 2)
    octets = (sealed / plan[0][0].name).read_bytes()
    (sealed / plan[0][0].name).write_bytes(octets.replace(b'"pt"', b'"tf"'))
    assert verify(sealed).problems == (
        "config.json: its content was altered (SHA-256 differs)",
        f"{plan[0][0].name}: its header was altered (SHA-256 differs)",
    )


@pytest.mark.parametrize("first_format", [False, True])
def test_sha256_on_request(sealed, tree, first_format):
    if first_format:
        as_first_format(sealed)
    expected = {
        name: hashlib.sha256(data).hexdigest() for name, data in tree(sealed).items() if name != "MANIFEST.json"
    }
    result = verify(sealed, sha256=True)
    assert result.ok and result.sha256 == expected
    assert verify(sealed).sha256 is None
    (sealed / "config.json").unlink()
    assert verify(sealed, sha256=True).sha256 == {name: sha for name, sha in expected.items() if name != "config.json"}


def test_a_pipe_in_place_of_a_file_is_not_waited_for(sealed, plan):
    for name in ("config.json", plan[0][0].name):
        (sealed / name).unlink()
        os.mkfifo(sealed / name)
    os.mkfifo(sealed / "extra")
    assert verify(sealed).problems == (
        "config.json: is not a regular file",
        f"{plan[0][0].name}: is not a regular file",
        "extra: is not in MANIFEST.json",
    )


def test_a_folder_that_cannot_be_listed_is_a_problem(sealed, common_folder, ordinary_user):
    copy = common_folder / "out"
    sealed.rename(copy)
    (copy / "closed").mkdir(mode=0)
    with ordinary_user():
        [problem] = verify(copy).problems
    assert "closed: may not be read (permission denied)" in problem


def test_many_files_and_tensors_take_no_product_of_the_two(sealed):
    content = json.loads((sealed / "MANIFEST.json").read_text())
    tensor = {"file": "x", "dtype": "F32", "shape": [], "xxh3": ""}
    content["files"] |= {f"f{index}": {"blake3": "", "bytes": 1} for index in range(20_000)}
    content["tensors"] |= {f"t{index}": tensor for index in range(20_000)}
    (sealed / "MANIFEST.json").write_text(json.dumps(content))
    assert len(verify(sealed).problems) == 20_001
