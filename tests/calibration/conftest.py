"""Two experts of a tiny Llama, and questions for each."""

import json

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
    tiny.save(tmp_path / "base", tiny.llama())
    for seed, name in enumerate(("plus", "letters")):
        model = tiny.llama()
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
        tiny.save(tmp_path / name, model)
    rows = [{"prompt": f"{n % 10}+{n // 2}=", "response": str(n % 10 + n // 2)} for n in range(10)]
    (tmp_path / "plus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "letters.txt").write_text("".join(f"{'abcdefghijklm'[n:]}\n" for n in range(10)))
    yield tmp_path
    torch.set_num_threads(before)
