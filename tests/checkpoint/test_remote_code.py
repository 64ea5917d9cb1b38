import json

import pytest

from rlmerge.checkpoint.remote_code import code_files
from rlmerge.errors import CheckpointError

MAP = {"AutoConfig": "configuration_my.MyConfig", "AutoModelForCausalLM": "modeling_my.MyForCausalLM"}


@pytest.fixture
def repository(tmp_path):
    """A directory whose model imports one more file, and a file that nobody needs."""
    files = {
        "configuration_my.py": "from transformers import PretrainedConfig\n",
        "modeling_my.py": "import torch\nfrom .configuration_my import MyConfig\nfrom .ops import fused\n",
        "ops.py": "from . import kernels\n",
        "kernels.py": "raise SystemExit('this must not run')\n",
        "tokenization_my.py": "",
        "train.py": "x = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path.resolve()


def config(value):
    return {"config.json": json.dumps({"auto_map": value}).encode()}


def test_without_an_auto_map_nothing_is_needed(repository):
    for content in ({}, {"auto_map": None}, {"auto_map": {}}, []):
        assert code_files(repository, {"config.json": json.dumps(content).encode()}, False) == {}


def test_code_is_refused_with_the_name_of_the_flag(repository):
    with pytest.raises(
        CheckpointError, match=r"config\.json names Python code .*configuration_my\.py(?s:.*)--trust-code"
    ):
        code_files(repository, config(MAP), False)


def test_trusted_code_comes_with_what_it_imports(repository):
    names = ["configuration_my.py", "kernels.py", "modeling_my.py", "ops.py", "tokenization_my.py"]
    assert code_files(repository, config(MAP), True) == {name: repository / name for name in names}


def test_a_list_and_a_file_on_disk(repository):
    (repository / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["tokenization_my.MyTokenizer", None]}})
    )
    found = code_files(repository, {"tokenizer_config.json": repository / "tokenizer_config.json"}, True)
    assert "tokenization_my.py" in found


def test_code_of_another_repository_is_loaded_from_there(repository):
    assert code_files(repository, config({"AutoModel": "org/name--modeling_my.My"}), False) == {}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"AutoModel": "modeling_other.My"}, r"config\.json names modeling_other\.py, which is not there"),
        ({"AutoModel": "../modeling.My"}, "which is no file of it"),
        ({"AutoModel": "/etc/x.My"}, "which is no file of it"),
        ({"AutoModel": "My"}, "which is no file of it"),
    ],
)
def test_what_is_named_must_be_there(repository, value, message):
    with pytest.raises(CheckpointError, match=message):
        code_files(repository, config(value), True)


def test_an_import_that_is_missing(repository):
    (repository / "ops.py").unlink()
    with pytest.raises(CheckpointError, match=r"modeling_my\.py names ops\.py, which is not there"):
        code_files(repository, config(MAP), True)


@pytest.mark.parametrize("text", ["def (", "\0", "<html>", "version https://git-lfs.github.com/spec/v1\n"])
def test_code_that_is_none(repository, text):
    (repository / "modeling_my.py").write_text(text)
    with pytest.raises(CheckpointError, match=r"modeling_my\.py: is"):
        code_files(repository, config(MAP), True)


def test_a_link_out_of_the_directory(repository):
    (repository.parent / "elsewhere.py").write_text("")
    (repository / "modeling_my.py").unlink()
    (repository / "modeling_my.py").symlink_to(repository.parent / "elsewhere.py")
    with pytest.raises(CheckpointError, match="outside the model directory"):
        code_files(repository, config(MAP), True)
