"""The script of docs/acceptance.md on small stand-ins, and the page against the script."""

from pathlib import Path

import pytest
from acceptance import FAMILIES, STAND_IN, commands, files, merges, script

from rlmerge.cli.app import run
from rlmerge.recipe import load_recipe
from rlmerge.search.request import read_search

PAGE = Path(__file__).parents[2] / "docs" / "acceptance.md"


@pytest.mark.parametrize("name", ["olmo", "ram"])
def test_the_page_shows_the_script(name):
    assert f"```bash\n{script(FAMILIES[name])}```" in PAGE.read_text()


@pytest.mark.parametrize("name", ["olmo", "ram"])
def test_the_page_has_a_row_for_every_merge(name):
    section = PAGE.read_text().split(f"python examples/acceptance.py {name}")[1].split("\n## ")[0]
    assert [merge for merge in merges(FAMILIES[name]) if f"| `{merge}` |" not in section] == []


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The directory that the script makes, with its files, and one thread for torch."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    pytest.importorskip("optuna")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "acceptance").mkdir()
    monkeypatch.chdir(tmp_path / "acceptance")
    for file, text in files(STAND_IN).items():
        Path(file).write_text(text)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path / "acceptance"
    torch.set_num_threads(before)


def test_the_commands_run_on_stand_ins(place, capsys):
    """All but those that tune and calibrate covariance, which differ by a file name and take as long as the rest."""
    quick = {"calibrate": ["--sequences", "8", "--held-out", "2", "--steps", "2"], "sensitivity": ["--batch-size", "8"]}
    for words in commands(STAND_IN):
        if any(word.startswith("cov") and word.endswith(".yaml") for word in words):
            continue
        words = ["8" if word == "64" else word for word in words if not word.startswith("cov-")]
        code = run([*words, *quick.get(words[0], [])])
        assert code == 0, f"{words}: {capsys.readouterr().err}"
    report = Path("report.html").read_text()
    for merge in (*merges(STAND_IN), "regmean", "ta-calibrated"):
        assert merge in report


def test_recipes_and_searches_can_be_read(tmp_path):
    for name in FAMILIES:
        for file, text in files(FAMILIES[name]).items():
            if "search" in file:
                space, settings = read_search(text + "\n", {})
                assert [d.name for d in space.dimensions if d.is_free] == ["lambda"] and settings.tasks
            else:
                assert len(load_recipe(text + "\n").experts) == 3
