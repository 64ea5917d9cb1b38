import json

import pytest

from rlmerge.checkpoint.chat import Templates, markers, read_templates
from rlmerge.checkpoint.directory import entries
from rlmerge.errors import CheckpointError


@pytest.fixture
def write(tmp_path):
    """Write files by name; the templates that are read from them."""

    def write(**files):
        for name, content in files.items():
            path = tmp_path / {"jinja": "chat_template.jinja", "old": "chat_template.json"}.get(name, f"{name}.json")
            path.write_text(content if name == "jinja" else json.dumps(content))
        root = tmp_path.resolve()
        return read_templates(root, entries(root), files.get("tokenizer_config", {}))

    return write


def test_none(write):
    assert write() == Templates()
    assert not write()


def test_in_the_tokenizers_configuration(write):
    assert write(tokenizer_config={"chat_template": "{{ a }}"}) == Templates("{{ a }}")
    named = [{"name": "default", "template": "{{ a }}"}, {"name": "rag", "template": "{{ b }}"}]
    assert write(tokenizer_config={"chat_template": named}) == Templates("{{ a }}", {"rag": "{{ b }}"})
    assert write(tokenizer_config={"chat_template": {"rag": "{{ b }}"}}) == Templates(None, {"rag": "{{ b }}"})


def test_a_file_wins_over_the_configuration(write):
    assert write(jinja="{{ f }}", tokenizer_config={"chat_template": "{{ a }}"}) == Templates("{{ f }}")


def test_a_folder(write, tmp_path):
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("{{ t }}")
    (tmp_path / "additional_chat_templates" / "notes.txt").write_text("x")
    assert write(jinja="{{ f }}") == Templates("{{ f }}", {"tool_use": "{{ t }}"})


def test_an_old_processors_file_comes_last(write):
    old = {"chat_template": "{{ p }}"}
    assert write(old=old) == Templates("{{ p }}")
    assert write(old=old, tokenizer_config={"chat_template": "{{ a }}"}) == Templates("{{ a }}")


def test_transformers_reads_the_same(write, tmp_path):
    transformers = pytest.importorskip("transformers")
    from support.tokenizers import write_tokenizer

    write_tokenizer(tmp_path, ["a"], chat="{{ f }}", chat_template="{{ a }}")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("{{ r }}")
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = read_templates(tmp_path.resolve(), entries(tmp_path), {"chat_template": "{{ a }}"})
    assert loaded.chat_template == {"default": ours.default, **ours.named}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_config": {"chat_template": [{"name": "../x", "template": "{{ a }}"}]}}, "cannot name a chat"),
        ({"jinja": "version https://git-lfs.github.com/spec/v1\n"}, "Git LFS pointer"),
        ({"jinja": "<!doctype html>"}, "HTML page"),
    ],
)
def test_what_is_refused(write, files, message):
    with pytest.raises(CheckpointError, match=message):
        write(**files)


def test_a_file_that_is_no_text(write, tmp_path):
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match="not UTF-8"):
        read_templates(tmp_path.resolve(), entries(tmp_path), {})


def test_files_to_write():
    found = Templates("{{ a }}", {"rag": "{{ é }}"}).files()
    assert found == {
        "chat_template.jinja": b"{{ a }}",
        "additional_chat_templates/rag.jinja": "{{ é }}".encode(),
    }
    assert Templates().files() == {}


def test_markers():
    text = "<|im_start|>{{ '<|end|>' }} [|user|] <s> [INST] <| no |> a<|>b"
    assert markers(text) == {"<|im_start|>", "<|end|>", "[|user|]"}
