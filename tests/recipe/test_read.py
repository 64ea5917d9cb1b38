import os
from pathlib import Path

import pytest

from rlmerge.errors import RecipeError, RequestError
from rlmerge.recipe.read import decode, read_file, read_text


def test_utf8_with_and_without_a_mark():
    assert decode(b"\xef\xbb\xbfa: \xc3\xa9", "r") == decode(b"a: \xc3\xa9", "r") == "a: é"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_other_encodings_of_unicode_are_named(encoding):
    with pytest.raises(RecipeError, match=r"recipe is UTF-\d\d.* text, not UTF-8\n  Save it as UTF-8"):
        decode("merge_method: ties\n".encode(encoding), "r.yaml")


def test_other_bytes_have_a_line():
    with pytest.raises(RecipeError, match=r"^r\.yaml:2: recipe is not UTF-8 text"):
        decode(b"a: 1\nb: \xff\n", "r.yaml")


def test_a_missing_file_suggests_its_neighbour(tmp_path):
    (tmp_path / "recipe.yaml").write_text("")
    (tmp_path / "recpies.txt").write_text("")
    with pytest.raises(RequestError) as caught:
        read_text(tmp_path / "recpie.yaml")
    assert caught.value.hint == f"Did you mean '{tmp_path / 'recipe.yaml'}'?"
    with pytest.raises(RequestError) as caught:
        read_text(tmp_path / "zzzzzzzz")
    assert caught.value.hint == "YAML files there: recipe.yaml."
    with pytest.raises(RequestError, match="no such recipe file") as caught:
        read_text(tmp_path / "nowhere" / "recipe.yaml")
    assert "no directory" in caught.value.hint


@pytest.mark.parametrize("name", ["x" * 300, "x" * 10_000, "a\0b"])
def test_names_that_no_file_can_have(tmp_path, name):
    with pytest.raises(RequestError, match="cannot read the recipe"):
        read_text(tmp_path / name)


def test_what_is_no_recipe_file(tmp_path):
    with pytest.raises(RequestError, match="directory, not a recipe"):
        read_text(tmp_path)
    (tmp_path / "big.yaml").write_bytes(b"#" * 1_000_001)
    with pytest.raises(RecipeError, match="larger than 1 MB"):
        read_text(tmp_path / "big.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    with pytest.raises(RequestError, match="cannot read"):
        read_text(tmp_path / "loop.yaml")


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs a file without an end")  # noqa: PTH110
def test_a_file_without_an_end_is_larger_than_a_recipe(tmp_path):
    (tmp_path / "endless.yaml").symlink_to("/dev/zero")
    with pytest.raises(RecipeError, match="larger than 1 MB"):
        read_text(tmp_path / "endless.yaml")


def test_a_pipe_is_read_and_one_without_a_writer_is_empty(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert read_text(tmp_path / "pipe") == ""
    reader, writer = os.pipe()
    os.write(writer, b"merge_method: ties")
    os.close(writer)
    assert read_file(Path(f"/dev/fd/{reader}")) == b"merge_method: ties"
    os.close(reader)


def test_a_device_has_no_end(tmp_path):
    assert read_file(Path("/dev/zero"), 3) == bytes(3)
    with pytest.raises(OSError, match="it is a device"):
        read_file(Path("/dev/zero"))
