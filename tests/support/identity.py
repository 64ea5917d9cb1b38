"""Model directories as training leaves them, and what is planned to stand beside merged weights."""

import json

import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.files import InputFile
from support.tokenizers import write_tables, write_tokenizer

CHAT = "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}"
WORDS = ["<unk>", "a", "b", "<|user|>", "<|end|>"]


@pytest.fixture(name="make")
def make_model(tmp_path):
    """Make a model directory; its checkpoint. Files are given by name, as text or as JSON."""

    def build(name, added=(), *, rows=9, config=None, files=None, tokenizer=True, **more):
        folder = write_tables(tmp_path / name, rows, **(config or {}))
        if tokenizer:
            write_tokenizer(folder, WORDS, added, **more)
        for file, content in (files or {}).items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text(content if isinstance(content, str) else json.dumps(content))
        return open_checkpoint(str(folder))

    return build


def content(identity, name):
    found = identity.files[name]
    data = found if isinstance(found, bytes) else found.copy(0, found.size)
    return json.loads(data) if name.endswith(".json") else data.decode()


def written(identity, folder):
    """The planned files on disk."""
    folder.mkdir()
    for name, found in identity.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(found if isinstance(found, bytes) else found.copy(0, found.size))
    return folder


def copied(identity):
    """{name: directory} of files copied as they are."""
    return {name: f.path.parent.name for name, f in identity.files.items() if isinstance(f, InputFile)}
