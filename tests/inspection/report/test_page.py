import math
import re
from dataclasses import replace

import pytest

from rlmerge.geometry.definitions import DEFINITIONS
from rlmerge.inspection import Finding
from rlmerge.inspection.report.page import inspect_html
from support.pages import CONTRAST, OVERFLOWING, Page


@pytest.fixture(scope="module")
def page(found):
    return inspect_html(found)


def test_is_one_well_formed_file_without_network(page):
    found = Page(page)
    assert found.open == [] and found.outside == []
    assert len(set(found.ids)) == len(found.ids)
    assert set(found.targets) <= set(found.ids)
    assert "default-src 'none'" in page and "http://" not in page and "@import" not in page


def test_every_plot_has_a_name_a_description_and_its_numbers(page):
    plots = re.findall(r"<figure>.*?</figure>", page)
    drawn = [p for p in plots if 'class="plot"' in p]
    assert len(drawn) == 10
    for plot in drawn:
        assert re.search(r'role="img" aria-label="[^"]+"', plot) and re.search(r"<desc>.+</desc>", plot)
        assert "<table" in plot.split("Show the numbers")[1]


def test_figures_stand_beside_threshold_null_and_status(page):
    for definition in DEFINITIONS.values():
        assert definition.status in page
    assert "chance 13.6 %" in page and "null ±" in page and "rounded to bfloat16, exact" in page


def test_names_from_outside_are_only_text(found):
    hostile = '"><script>alert(1)</script>'
    expert = found.experts[0]
    bad = replace(expert, model=replace(expert.model, name=hostile))
    finding = Finding("x", "warning", hostile, hostile, {hostile: 1.0})
    page = inspect_html(replace(found, experts=(bad,), pairs=(), findings=(finding,), forecasts=(), spectra=()))
    assert "<script>alert" not in page
    assert Page(page).open == []


def test_a_single_expert_equal_to_the_base(found):
    expert = found.experts[0]
    empty = {key: replace(measure, value=math.nan) for key, measure in expert.figures.items()}
    lone = replace(expert, figures=empty, magnitudes={}, shared_exactly=(math.nan,), shared_by_chance=(1.0,))
    nothing = dict.fromkeys(("layers", "trends", "modules", "tensors", "spectra", "pairs", "forecasts"), ())
    page = inspect_html(replace(found, experts=(lone,), recommendation=None, **nothing))
    assert "nothing to draw" in page and "what has to be settled first" in page and "nan" not in page
    assert Page(page).open == []


def test_figures_that_are_not_known_are_dashes(found):
    unknown = [
        replace(pair, figures={key: replace(measure, value=math.nan) for key, measure in pair.figures.items()})
        for pair in found.pairs
    ]
    page = inspect_html(replace(found, pairs=tuple(unknown)))
    assert Page(page).open == [] and ">nan" not in page and page.count("<td>–</td>") >= 24


def test_long_names_stay_inside_their_charts(browser, found, tmp_path):
    """Names of models are cut in their middle: what is wider than the place for it would be off the page."""
    name = "organisation/a-rather-long-name-of-an-expert-for-mathematics-"
    experts = [
        replace(expert, model=replace(expert.model, name=f"{name}{k}")) for k, expert in enumerate(found.experts)
    ]
    long = replace(found, experts=tuple(experts), pairs=(), spectra=())
    file = tmp_path / "report.html"
    file.write_text(inspect_html(long), encoding="utf-8")
    view = browser.new_page(viewport={"width": 1280, "height": 844})
    view.goto(file.as_uri())
    assert view.evaluate(OVERFLOWING) == []
    view.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (320, "dark")])
def test_in_a_browser(browser, page, tmp_path, width, scheme):
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    view = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    said = []
    view.on("console", lambda message: said.append(message.text))
    view.on("pageerror", lambda error: said.append(str(error)))
    view.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)
    view.goto(file.as_uri())
    assert said == []
    assert view.evaluate("document.documentElement.scrollWidth <= innerWidth")
    boxes = view.evaluate(
        "[...document.querySelectorAll('svg.plot')].map(p => p.getBBox()).map(b => b.width * b.height)"
    )
    assert len(boxes) == 10 and min(boxes) > 10_000
    contrast = view.evaluate(CONTRAST)
    assert contrast >= 4.5  # WCAG AA for body text
    view.close()


def test_on_paper_everything_is_light_and_fits(browser, page, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    view = browser.new_page(viewport={"width": 720, "height": 1000}, color_scheme="dark")
    view.goto(file.as_uri())
    view.emulate_media(media="print", color_scheme="dark")
    assert view.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert view.evaluate("getComputedStyle(document.querySelector('.s0')).color") == "rgb(11, 98, 164)"
    too_wide = "[...document.querySelectorAll('section > *')].filter(e => e.scrollWidth > innerWidth + 1).length"
    assert view.evaluate(too_wide) == 0
    assert not view.locator("nav").is_visible()
    view.close()


def test_keyboard_filter_sort_and_toggles(browser, page, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    view = browser.new_page()
    view.goto(file.as_uri())
    view.focus("svg.plot")
    view.keyboard.press("ArrowRight")
    assert "linear (average)" in view.text_content("#said")
    assert view.text_content("#tip") == view.text_content("#said")
    view.fill("#filter", "down_proj")
    assert view.text_content("#shown") == "3 of 29 tensors"
    assert view.locator("#tensors tbody tr:visible").count() == 3
    view.fill("#filter", "")
    view.click("#tensors thead th:nth-child(5) button")
    shares = view.evaluate("[...document.querySelectorAll('#tensors tbody tr')].map(r => +r.cells[4].dataset.value)")
    assert shares == sorted(shares) and shares[0] < shares[-1]
    view.click(".legend button >> nth=0")
    assert view.get_attribute(".legend button >> nth=0", "aria-pressed") == "false"
    hidden = "[...document.querySelectorAll('g[data-series=\"0\"]')].filter(g => g.style.display !== 'none').length"
    assert view.evaluate(hidden) == 0
    view.close()
