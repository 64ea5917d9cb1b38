from rlmerge.report.page import finding, findings, grid, legend, page, panel


def test_sections_without_content_are_left_out():
    text = page(
        title="t", heading="h", summary="s", footer="f",
        sections=[("a", "First", "<p>1</p>"), ("b", "Second", ""), ("c", "Third", "<p>3</p>")],
    )  # fmt: skip
    assert 'href="#a"' in text and 'href="#b"' not in text and 'id="b"' not in text
    assert "Skip to: First" in text


def test_the_legend_stands_where_it_is_asked_to():
    sections = [(key, key, f"[{key}]") for key in "abc"]
    text = page(title="t", heading="h", summary="s", footer="f", sections=sections, legend="LEGEND", legend_after=2)
    assert text.index("[b]") < text.index("LEGEND") < text.index("[c]")


def test_everything_from_outside_is_text():
    bad = '"><script>alert(1)</script>'
    made = page(
        title=bad, heading=bad, summary=bad, footer=bad, sections=[("a", bad, "x")], legend=legend([(bad, 3)], bad)
    )
    assert "<script>alert" not in made + findings([finding("good", bad, bad)])


def test_a_name_that_is_no_text_still_gives_a_file(tmp_path):
    text = page(title="t", heading="bad \udcff byte", summary="s", footer="f", sections=[("a", "A", "x")])
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    assert "bad \\udcff byte" in text


def test_a_finding_says_its_level_or_what_that_means():
    made = finding("warning", "ties is worse", "", "<details></details>")
    assert made == (
        '<li class="warning"><span class="level">warning</span><strong>ties is worse</strong><details></details></li>'
    )
    assert '<span class="level">below &lt;base&gt;</span>' in finding("problem", "t", "", label="below <base>")


def test_frames():
    assert grid("x", "grid one") == '<div class="grid one">x</div>' and panel("x") == '<div class="panel">x</div>'
