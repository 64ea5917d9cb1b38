"""The documentation says what the code says: generated pages, links, and the Python it shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rlmerge
from rlmerge.methods import get, names
from support.attacks.places import MODELS, OUTPUTS

ROOT = Path(__file__).parents[1]
REPORTS = sorted(study.parent for study in (ROOT / "docs" / "lab-report").rglob("study.json.gz"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_page_of_methods_is_up_to_date():
    run = subprocess.run([sys.executable, ROOT / "docs" / "generate.py", "--check"], check=False)
    assert run.returncode == 0, "run python docs/generate.py"


def test_the_readme_lists_every_method_with_its_status():
    text = (ROOT / "README.md").read_text()
    assert [name for name in names() if f"`{name}`" not in text] == []


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.name)
def test_a_report_of_the_laboratory_is_what_its_study_prints(tmp_path, report):
    arguments = ["lab", "report", str(report / "study.json.gz"), "-o", str(tmp_path)]
    subprocess.run([sys.executable, "-c", "from rlmerge.cli import main; main()", *arguments], check=True)
    made = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    kept = {path.name: path.read_text(encoding="utf-8") for path in report.iterdir() if path.suffix in (".md", ".svg")}
    assert kept == {name: text for name, text in made.items() if name != "report.html"}


def test_the_comparison_of_sizes_is_what_its_studies_print(tmp_path):
    kept = ROOT / "docs" / "lab-report" / "sizes"
    studies = ["../words/study.json.gz", "words-128.json.gz", "words-256.json.gz"]
    arguments = ["lab", "compare", *studies, "-o", str(tmp_path)]
    subprocess.run([sys.executable, "-c", "from rlmerge.cli import main; main()", *arguments], check=True, cwd=kept)
    made = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    found = {path.name: path.read_text(encoding="utf-8") for path in kept.iterdir() if path.suffix != ".gz"}
    assert found == made


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_pages_of_the_site_link_to_pages_of_the_site(page):
    """What else the repository holds is linked by its address: the site is built without it."""
    assert re.findall(r"\]\((\.\./[^)]*)\)", page.read_text()) == []


def test_the_guarantees_name_tests_that_exist():
    named = re.findall(r"`(?:python )?((?:tests|bench)/[\w/]+\.py)", (ROOT / "docs" / "guarantees.md").read_text())
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).is_file()] == []
    assert f"{len(MODELS)} models, {len(OUTPUTS)} places, " in (ROOT / "docs" / "guarantees.md").read_text()


def test_the_differences_from_mergekit_are_those_that_were_measured():
    rows = re.findall(r"^\| `[^|]*(?:\|[^|\n]*){7}\|$", (ROOT / "docs" / "from-mergekit.md").read_text(), re.MULTILINE)
    kept = _cells((ROOT / "bench" / "RESULTS.md").read_text())
    assert len(rows) > 15
    assert [row for row in rows if tuple(_cells(row.replace("`", ""))[0]) not in {tuple(each) for each in kept}] == []


def _cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines() if row.startswith("|")]


def test_the_methods_of_ones_own_work_as_shown(monkeypatch):
    monkeypatch.setattr("rlmerge.methods._registry", {name: get(name) for name in names()})
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "own-method.md").read_text(), re.DOTALL)
    space: dict[str, object] = {}
    exec(blocks[0].split("rlmerge.merge(")[0], space)
    exec(blocks[1], space)
    base = {"w": np.zeros((2, 2), np.float32)}
    experts = [{"w": np.full((2, 2), 0.5, np.float32)}, {"w": np.full((2, 2), -0.25, np.float32)}]
    # Signs differ everywhere, so nothing is added; L1 norms 2 and 1 against a limit of 1 scale by 1/2 and 1.
    assert np.array_equal(rlmerge.merge_state_dicts(base, experts, "consensus")["w"], base["w"])
    clipped = rlmerge.merge_state_dicts(base, experts, "clip", limit=1.0)["w"]
    assert np.array_equal(clipped, np.full((2, 2), 0.25 - 0.25, np.float32))
