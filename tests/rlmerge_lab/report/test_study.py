"""The HTML report of a study in a real browser, and its terminal report, which keeps to its width."""

import re

import pytest

from rlmerge.text import columns
from rlmerge_lab.claims import judge
from rlmerge_lab.report.study import study_html, study_text
from support.studies import METHODS, study


@pytest.fixture(scope="module")
def both():
    rows = study()
    return rows, judge(rows).to_dict()


@pytest.fixture(scope="module")
def page(both):
    return study_html(*both)


def test_is_one_file_without_network(page):
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)
    assert "default-src 'none'" in page and "http://" not in page and "@import" not in page


def test_every_plot_has_a_name_a_description_and_its_numbers(page):
    drawn = [figure for figure in re.findall(r"<figure>.*?</figure>", page) if 'class="plot"' in figure]
    # Two of the experts, four of the gains, two of the scale, three of conflict, two landscapes.
    assert len(drawn) == 13
    for figure in drawn:
        assert re.search(r'role="img" aria-label="[^"]+"', figure) and re.search(r"<desc>.+</desc>", figure)
        assert "<table" in figure.split("Show the numbers")[1]


def test_sections_without_content_are_left_out():
    rows = study(health=[], landscape=[])
    page = study_html(rows, judge(rows).to_dict())
    assert 'id="landscape"' not in page and 'id="health"' not in page and "#landscape" not in page


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark"), (320, "light")])
def test_in_a_browser(browser, page, tmp_path, width, scheme):
    file = tmp_path / "study.html"
    file.write_text(page, encoding="utf-8")
    view = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    said = []
    view.on("console", lambda message: said.append(message.text))
    view.on("pageerror", lambda error: said.append(str(error)))
    view.goto(file.as_uri())
    assert said == []
    assert view.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # A parser that met an unclosed element would have put sections into one another.
    assert view.evaluate("document.querySelectorAll('section section, li li, figure figure').length") == 0
    assert view.locator("main > section").count() == page.count("<section ")
    view.click("#verdicts summary >> nth=0")
    assert view.locator("#verdicts details[open] dd").count() >= 4
    assert view.evaluate("document.documentElement.scrollWidth <= innerWidth")
    view.click('.legend button:has-text("sft") >> nth=0')
    hidden = "[...document.querySelectorAll('#gains g[data-series=\"2\"]')].every(g => g.style.display === 'none')"
    assert view.evaluate(hidden)
    view.close()


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_line_is_wider_than_asked(both, width):
    assert max(columns(line) for line in study_text(*both, width=width, color=False).splitlines()) <= width


def test_a_narrow_terminal_shows_the_same_figures_as_a_wide_one(both):
    found = [set(re.findall(r"\d+(?:\.\d+)?", study_text(*both, width=width, color=False))) for width in (60, 400)]
    assert found[0] == found[1]


def test_every_verdict_and_method_is_there(both):
    rows, judged = both
    text = study_text(rows, judged, width=200, color=False)
    for verdict in judged["verdicts"]:
        assert f"{verdict['verdict']}" in text and verdict["claim"] in text
    assert all(f"\n{method} " in text for method in METHODS)


def test_colour_only_when_asked(both):
    assert "\x1b[" in study_text(*both, width=80, color=True)
    assert "\x1b[" not in study_text(*both, width=80, color=False)
