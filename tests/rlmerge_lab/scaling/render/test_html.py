"""The report as a browser and a screen reader meet it: valid, self-contained, with words for every figure."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from rlmerge_lab.scaling.render.html import page

VOID = {"meta", "source", "img", "link", "br"}


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.seen if name == tag]


@pytest.fixture(scope="module")
def report(outcomes):
    return page(list(outcomes.values()), seed=0)


@pytest.fixture(scope="module")
def read(report):
    reader = Reader()
    reader.feed(report)
    return reader


def test_tags_nest(read):
    assert read.open == []


def test_nothing_is_fetched(report, read):
    assert "http" not in report.replace("http-equiv", "")
    assert not read.all("script") and not read.all("link")
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in read.all("img"))
    assert "@import" not in report and "url(" not in report


def test_every_figure_has_words_and_four_drawings(outcomes, read):
    images = read.all("img")
    assert len(images) == sum(len(outcome.figures) for outcome in outcomes.values()) == 7
    assert all(image["alt"] for image in images)
    assert len(read.all("source")) == 3 * len(images)
    assert len({source["srcset"] for source in read.all("source")} | {i["src"] for i in images}) == 4 * len(images)


def test_links_and_labels_lead_somewhere(read):
    ids = [attributes["id"] for _, attributes in read.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [a["href"].removeprefix("#") for a in read.all("a")]
    labels = [attributes["aria-labelledby"] for _, attributes in read.seen if "aria-labelledby" in attributes]
    assert targets and set(targets + labels) <= set(ids)


def test_scrolling_tables_can_be_reached_by_keyboard(read):
    regions = [a for _, a in read.seen if a.get("class") == "scroll"]
    assert len(regions) > 10 and all(region.get("tabindex") == "0" for region in regions)


def test_every_claim_is_shown_with_its_verdict(outcomes, report):
    for outcome in outcomes.values():
        for claim in outcome.claims:
            assert f"{claim.verdict}</span>" in report
    assert report.count('class="verdict"') == sum(len(outcome.claims) for outcome in outcomes.values())


def test_text_is_escaped(outcomes):
    from dataclasses import replace

    claim = replace(outcomes["memory"].claims[0], reason="<script>alert(1)</script> & more")
    shown = page([replace(outcomes["memory"], claims=(claim,), figures=())], seed=0)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in shown and "<script>" not in shown
