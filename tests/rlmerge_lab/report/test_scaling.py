"""The scale study as a browser, a screen reader and a terminal meet it, and as files."""

import csv
import io
import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from rlmerge.text import columns
from rlmerge_lab.report.scaling import scaling_files, scaling_html, scaling_text
from rlmerge_lab.scaling import STUDIES, run
from support.pages import Page


@pytest.fixture(scope="module")
def outcomes():
    return {name: run(name) for name in STUDIES}


@pytest.fixture(scope="module")
def report(outcomes):
    return scaling_html(list(outcomes.values()), seed=0)


def test_tags_nest_and_links_lead_somewhere(report):
    page = Page(report)
    assert page.open == [] and page.targets
    assert len(set(page.ids)) == len(page.ids) and set(page.targets) <= set(page.ids)


def test_nothing_is_fetched(report):
    assert "http" not in report.replace("http-equiv", "")
    assert "@import" not in report and "url(" not in report and "default-src 'none'" in report


def test_every_picture_has_words_and_its_numbers(outcomes, report):
    drawn = [figure for figure in re.findall(r"<figure>.*?</figure>", report) if 'class="plot"' in figure]
    assert len(drawn) == sum(len(outcome.pictures) for outcome in outcomes.values()) == 12
    for figure in drawn:
        assert re.search(r'role="img" aria-label="[^"]+"', figure) and re.search(r"<desc>.{50,}</desc>", figure)
        assert "<table" in figure.split("Show the numbers")[1]


def test_every_claim_is_shown_with_its_verdict(outcomes, report):
    for outcome in outcomes.values():
        for claim in outcome.claims:
            assert f"{claim.verdict}</span>" in report
    assert report.count('class="level"') == sum(len(outcome.claims) for outcome in outcomes.values()) == 41
    assert re.search(r">all</th><td>15</td><td>14</td><td>12</td>", report)


def test_text_is_escaped(outcomes):
    claim = replace(outcomes["memory"].claims[0], reason="<script>alert(1)</script> & more")
    shown = scaling_html([replace(outcomes["memory"], claims=(claim,))], seed=0)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in shown and "<script>alert" not in shown


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark"), (320, "light")])
def test_in_a_browser(browser, report, tmp_path, width, scheme):
    file = tmp_path / "report.html"
    file.write_text(report, encoding="utf-8")
    view = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    said = []
    view.on("console", lambda message: said.append(message.text))
    view.on("pageerror", lambda error: said.append(str(error)))
    view.goto(file.as_uri())
    assert said == []
    assert view.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert view.evaluate("document.querySelectorAll('section section, li li, figure figure').length") == 0
    assert view.locator("main > section").count() == 1 + len(STUDIES)
    view.close()


def test_the_papers_number_ours_verdict_and_reason(outcomes):
    shown = scaling_text(outcomes["memory"], width=120, color=False)
    assert "✗ not reproduced  270× at 405B  §3.6" in shown
    assert "paper 270×   ours 180×" in shown
    assert "The text contradicts its own table: 3240 / 18." in shown
    assert "Llama-3.1-405B" in shown


def test_seed_and_tally_close_the_study(outcomes):
    last = scaling_text(outcomes["law"], width=120, color=False).splitlines()[-1]
    assert last.startswith("6 reproduced, 4 not reproduced; seed 0;")
    assert outcomes["agents"].tally == "4 reproduced in kind"


def test_a_narrow_terminal_loses_no_digit(outcomes):
    shown = scaling_text(outcomes["sparsity"], width=70, color=False)
    assert max(map(columns, shown.splitlines())) <= 70
    for cell in ("0.9139 ± 0.0224", "0.9940 ± 0.0020", "39019", "1,000,000", "0.99994"):
        assert re.search(rf" {re.escape(cell)}( |$)", shown, re.MULTILINE)


def test_files_are_the_pictures_the_tables_and_the_result(outcomes):
    found = scaling_files(outcomes["memory"])
    assert set(found) == {"memory.json", "table-4.csv", "table-4-models.csv", "figure-6.svg"}
    root = ElementTree.fromstring(found["figure-6.svg"])
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and "equation 6, real shapes" in found["figure-6.svg"]
    rows = list(csv.reader(io.StringIO(found["table-4.csv"])))
    assert [row[0] for row in rows] == ["size", "3B", "7B", "13B", "70B", "405B"]
    assert json.loads(found["memory.json"])["result"]["agents"] == 3


def test_the_same_outcome_gives_the_same_bytes(outcomes):
    again = replace(run("memory"), seconds=outcomes["memory"].seconds)
    assert scaling_files(again) == scaling_files(outcomes["memory"])
