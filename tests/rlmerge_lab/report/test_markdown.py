"""The Markdown report: what it links is there, its tables are tables, its pictures stand alone."""

import re
from xml.etree import ElementTree

import pytest

from rlmerge_lab.claims import judge
from rlmerge_lab.report.markdown import PAGE, study_markdown, text
from support.studies import study


@pytest.fixture(scope="module")
def files():
    rows = study()
    return study_markdown(rows, judge(rows).to_dict())


def test_pictures_and_links_are_the_same_set(files):
    linked = re.findall(r"!\[[^]]+\]\(([^)]+)\)", files[PAGE])
    assert sorted(linked) == sorted(name for name in files if name != PAGE)
    assert len(linked) == len(set(linked)) == 11


def test_it_is_small(files):
    assert max(len(content) for content in files.values()) < 100_000


def test_every_row_of_a_table_has_the_cells_of_its_head(files):
    for block in files[PAGE].split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in lines}) <= 1


def test_pictures_are_xml_that_needs_nothing(files):
    for name, content in files.items():
        if name != PAGE:
            root = ElementTree.fromstring(content)
            assert root.tag == "{http://www.w3.org/2000/svg}svg" and float(root.get("height")) > 50
            assert "url(" not in content and "href" not in content


def test_the_same_study_gives_the_same_bytes(files):
    rows = study()
    assert study_markdown(rows, judge(rows).to_dict()) == files


def test_signs_of_markdown_are_shown_as_they_are():
    assert text("a_b *c* [d] |e| <f>") == "a\\_b \\*c\\* \\[d\\] \\|e\\| &lt;f>"
