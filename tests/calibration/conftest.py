"""Two experts of a tiny Llama, and questions for each."""

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Statistics of no other test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def family(tmp_path, monkeypatch):
    """The working directory with ``base``, ``plus`` and ``letters`` of it, and ``plus.jsonl`` and ``letters.txt``."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from support import tiny

    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tiny.family(tmp_path)
    torch.set_num_threads(before)
