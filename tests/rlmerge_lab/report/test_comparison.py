"""Several studies on a terminal and as Markdown."""

import re
from xml.etree import ElementTree

import pytest

from rlmerge.text import columns
from rlmerge_lab.claims.comparison import compare
from rlmerge_lab.report.comparison import comparison_markdown, comparison_text
from rlmerge_lab.report.markdown import PAGE
from support.studies import SPLIT, second_edition, study


@pytest.fixture(scope="module")
def found():
    def sized(weights, by):
        gains = {("rl", "covariance", "tuned"): lambda seed: 0.5 + by + SPLIT[seed]}
        return f"{weights}", second_edition(gains=gains, parameters=weights, profile="words")

    return compare([("full", study(vocabulary=49)), sized(10**5, 0.0), sized(10**6, 0.1), sized(10**7, 0.2)])


@pytest.fixture(scope="module")
def files(found):
    return comparison_markdown(found, "rlmerge lab compare a b -o DIR")


def test_trends_are_said_with_their_interval(found, files):
    page = files[PAGE].replace("\\", "")
    # 10 points at each decade. At each of three sizes Σ residual² is 0.001, so with 13 degrees of freedom and
    # Σ (x − x̄)² = 10 the half width is 2.1604 · √(0.003 / 13 / 10) = 0.01038.
    line = "grows, 10.0 points per decade of weights [9.0, 11.0]"
    assert line in page and line in comparison_text(found, width=100, color=False)
    assert "no trend seen, 0.0 points per decade of weights" in page


def test_pictures_and_links_are_the_same_set_and_xml(files):
    linked = re.findall(r"!\[[^]]+\]\(([^)]+)\)", files[PAGE])
    assert sorted(linked) == sorted(name for name in files if name != PAGE) and len(set(linked)) == len(linked)
    for name in linked:
        assert ElementTree.fromstring(files[name]).tag == "{http://www.w3.org/2000/svg}svg"


def test_every_row_of_a_table_has_the_cells_of_its_head(files):
    for block in files[PAGE].split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in lines}) <= 1


@pytest.mark.parametrize("width", [60, 100])
def test_a_terminal_s_width_is_kept(found, width):
    shown = comparison_text(found, width=width, color=False)
    assert max(columns(line) for line in shown.splitlines()) <= width
    assert all(line.claim.split()[0] in shown for line in found.lines)


def test_studies_that_share_nothing_have_a_page():
    alone = compare([("a", study(0)), ("b", study(0, parameters=10**6))])
    assert "No figure is in two of the studies." in comparison_markdown(alone, "c")[PAGE]
    assert "607,104" in comparison_text(alone, width=80, color=False)


def test_names_from_outside_are_only_text():
    hostile = '"><script>alert(1)</script>|`x`\x1b[31m'
    found = compare([("a", study(profile=hostile)), ("b", study(profile=hostile, parameters=10**6))])
    page = comparison_markdown(found, "c")[PAGE]
    assert "<script>" not in page and "\x1b" not in page + comparison_text(found, width=80, color=False)
