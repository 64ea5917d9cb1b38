import pytest

from rlmerge.checkpoint.directory import entries
from rlmerge.checkpoint.formats.locate import find_home, with_parents


def holds(root, names):
    return "weights.here" in names


def found(root):
    home = find_home(root, entries(root), holds)
    return None if home is None else home[0].relative_to(root).as_posix()


@pytest.fixture
def place(tmp_path):
    def put(*folders):
        for folder in folders:
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / "weights.here").write_bytes(b"")
        return tmp_path

    return put


@pytest.mark.parametrize(
    "folder",
    [".", "actor", "_actor", "policy", "trainer", "weights/model", "policy/weights/model", "pytorch_model_fsdp_0"],
)
def test_where_trainers_put_weights(place, folder):
    assert found(place(folder)) == folder


@pytest.mark.parametrize("folder", ["critic", "ref", "optimizer_0", "other", "policy/weights/model/model", ".actor"])
def test_where_other_things_are(place, folder):
    assert found(place(folder)) is None


def test_the_directory_itself_comes_first(place):
    assert found(place(".", "actor")) == "."


def test_of_two_neither_is_chosen(place):
    assert found(place("actor", "policy")) is None
    assert found(place("actor/weights", "actor/model")) is None


def test_links_are_not_followed(place, tmp_path):
    root = place("elsewhere/actor")
    (root / "elsewhere/x").mkdir()
    (root / "actor").symlink_to("elsewhere/actor")
    assert found(root) is None


def test_files_under_such_names(tmp_path):
    (tmp_path / "actor").write_bytes(b"")
    assert found(tmp_path) is None


def test_where_a_configuration_can_be(tmp_path):
    """Above a part of a checkpoint, but not above a folder of any other name: that may be of another model."""
    folder = tmp_path / "models/step_3/policy/weights/model"
    above = [folder, *folder.parents[:3]]
    assert with_parents(folder, folder) == [*above, folder]
    assert with_parents(tmp_path / "models/mine", tmp_path) == [tmp_path / "models/mine", tmp_path]
    assert with_parents(tmp_path / "models/global_step30", tmp_path)[1] == tmp_path / "models"
