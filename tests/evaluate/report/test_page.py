import re
from dataclasses import replace
from math import inf

import pytest

from rlmerge.evaluate.report.page import eval_html
from support.evaluations import HOSTILE, SCORES, evaluation, full, hostile, landscape, unknown, wide
from support.pages import CONTRAST, OVERFLOWING, Page

RESULTS = {
    "full": full(),
    "many tasks": wide(12, 12),
    "one task": evaluation({"base": (0.2,), "e": (0.6,), "m": (0.6,)}, ("gsm8k",), experts=1),
    "no merge": evaluation(dict(list(SCORES.items())[:4])),
    "only a base": evaluation({"base": (0.2,)}, ("t",), experts=0),
    "hostile": hostile(),
}
PAGES = {name: eval_html(result) for name, result in RESULTS.items()}


@pytest.mark.parametrize("name", PAGES)
def test_is_one_well_formed_file_without_network(name):
    page = PAGES[name]
    found = Page(page)
    assert found.open == [] and found.outside == []
    assert len(set(found.ids)) == len(found.ids) and set(found.targets) <= set(found.ids)
    assert "default-src 'none'" in page and "http://" not in page and "https://" not in page


@pytest.mark.parametrize("name", PAGES)
def test_every_plot_has_a_name_a_description_and_its_numbers(name):
    plots = [p for p in re.findall(r"<figure>.*?</figure>", PAGES[name], re.DOTALL) if 'class="plot"' in p]
    assert plots
    for plot in plots:
        assert re.search(r'role="img" aria-label="[^"]+"', plot) and re.search(r"<desc>.+</desc>", plot, re.DOTALL)
        assert "<table" in plot.split("Show the numbers")[1]
        assert "nothing to draw" not in plot


def test_every_section_of_a_full_result_and_none_without_content():
    assert re.findall(r'<section id="(\w+)"', PAGES["full"]) == [
        "verdict", "warnings", "scores", "kept", "compared", "health", "landscape", "models", "definitions",
    ]  # fmt: skip
    assert re.findall(r'<section id="(\w+)"', PAGES["no merge"]) == ["verdict", "scores", "models", "definitions"]
    assert "What did the merge keep?" in PAGES["one task"] and "What did the merges keep?" in PAGES["full"]


def test_the_verdict_says_what_was_kept_and_the_next_step():
    page = PAGES["full"]
    assert '<span class="level">below its experts</span><strong>ties keeps 60.5 % [53.5 %, 67.5 %]' in page
    assert "<strong>Next:</strong> ties loses most on rev." in page
    assert '<span class="level">nothing lost that shows</span>' in PAGES["one task"]


def test_figures_stand_with_their_intervals():
    page = PAGES["full"]
    assert "<td>0.435<small>[0.405, 0.465]</small></td>" in page.replace(' style="--weight: 0.00"', "")
    for words in ("53.1 % [46.2 %, 60.0 %]", "−46.9 % [−53.8 %, −40.0 %]", "rev · rl-rev, ties: −11.5 %"):
        assert words in page
    assert 'data-tip="ties − base: 0.168 [0.138, 0.198]; better"' in page


def test_health_shows_repetition_lengths_and_divergence():
    page = PAGES["full"]
    assert 'data-tip="looping, ties: 21.0 %"' in page and 'data-tip="ties, median 40"' in page
    assert re.search(r'<th scope="row">ties</th><td style="--weight: 0.60" class=strong>∞', page)


def test_the_landscape_has_pictures_cuts_barriers_and_sharpness():
    page = PAGES["full"]
    assert page.count('class="iso h0"') == 2  # score and loss
    assert 'data-tip="rl-rev + α·τ(rl-cnt), 0.5: 0.446"' in page  # 0.45 / (1 + 0.1²)
    assert 'data-tip="rl-rev – rl-cnt: barrier 0.4, 0.5: 0.4"' in page  # at the middle, 1.6 · 0.5 · 0.5 above the line
    assert 'data-tip="rev, rl-rev: 0.031 [0.031, 0.084]"' in page


def test_a_flat_landscape_has_no_heat_map_and_a_partial_one_no_gaps():
    flat = eval_html(evaluation(landscape=landscape(flat=True)))
    assert "iso h0" not in flat and "along a task vector" in flat
    (path,) = landscape().barriers
    cut = replace(path, loss=(path.loss[0], *(inf,) * 9, path.loss[-1]), barrier=inf)
    page = eval_html(evaluation(landscape=replace(landscape(), pictures=(), sharpness=(), barriers=(cut,))))
    assert Page(page).open == [] and "rl-rev – rl-cnt: barrier –, 1: 0" in page and "inf" not in page.split("<main>")[1]


def test_unknown_figures_are_dashes_and_no_errors():
    found = unknown(evaluation())
    found = replace(found, scores=tuple(cell for cell in found.scores if cell.model != "ties"))
    page = eval_html(found)
    assert Page(page).open == [] and "None" not in page and "nan" not in page


def test_scores_beyond_one_have_a_chart_of_their_own():
    table = {"base": (0.2, 31.0), "e": (0.6, 40.0), "m": (0.5, 38.0)}
    page = eval_html(evaluation(table, ("gsm8k", "elo"), experts=1))
    assert 'aria-label="Scores on gsm8k"' in page and 'aria-label="Scores on elo"' in page


def test_names_from_outside_are_only_text():
    page = PAGES["hostile"]
    assert "<script>alert" not in page and "\x1b" not in page
    assert HOSTILE[:20] not in page


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_in_a_browser(browser, tmp_path, name, width, scheme):
    file = tmp_path / "report.html"
    file.write_text(PAGES[name], encoding="utf-8")
    view = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    said = []
    view.on("console", lambda message: said.append(message.text))
    view.on("pageerror", lambda error: said.append(str(error)))
    view.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)
    view.goto(file.as_uri())
    assert said == []
    assert view.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert view.evaluate(OVERFLOWING) == []
    if name == "full":
        assert view.evaluate(CONTRAST) >= 4.5  # WCAG AA for body text
    view.close()


def test_the_legend_hides_a_model_and_leaves_other_series(browser, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(PAGES["full"], encoding="utf-8")
    view = browser.new_page()
    view.goto(file.as_uri())
    shown = "[...document.querySelectorAll('svg.plot g')].filter(g => g.style.display !== 'none').length"
    before = view.evaluate(shown)
    view.click(".legend button:has-text('average')")
    # a chart of scores, four of what was kept, and rates, lengths and entropy; not the pairs and the landscape
    assert before - view.evaluate(shown) == 8
    view.focus("svg[aria-label='Merges against the base']")
    view.keyboard.press("ArrowRight")
    assert view.text_content("#said") == "average − base: 0.077 [0.047, 0.107]; better"
    view.close()
