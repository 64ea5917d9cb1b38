"""Escaping: what steers a medium does not get through, and what is harmless stays as it is."""

import io
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console
from rich.text import Text

from rlmerge.text import block, code, colored, displayed, fenced, plain, prose, quoted, shortened

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "![i](http://evil/x.png)<script>",
    "[a](javascript:alert(1))",
    "a|b|c",
    "a\nerror: all is lost",
    "`code` ``more`` `",
    "`",
    "``` \n# head",
    "\x1b]0;pwned\x07",
    "\x9b31m",
    "\u202etxt.exe",
    "\ud800",
    "-",
    "---",
    "===",
    "1. one",
    "12) one",
    "+ plus",
    "# head",
    "> quote",
    "    indented",
    "www.evil.com and http://evil.com",
    "<http://evil.com>",
    "&lt;b&gt; &#60;",
    "__init__ *bold* _em_ ~~gone~~ a_b_c",
    "a\\|b \\` \\",
    "| - |",
    "$x$ @you :smile:",
    "",
    " ",
    "  a  ",
    "\t\r\x0b\x0c\x85\u2028\u2029",
]
PARTS = ["`", "``", "|", "\\", "<b>", "</b>", "![", "](", ")", "*", "_", "\n", " ", "a", "1.", "#", "~", "&#60;", ":"]
ANY = st.one_of(
    st.text(max_size=60),
    st.text(st.characters(), max_size=20),
    st.lists(st.sampled_from(PARTS), max_size=12).map("".join),
)


def hostile(test):
    """The test on any text, and on each of ``HOSTILE``."""
    for text in HOSTILE:
        test = example(text)(test)
    return given(ANY)(test)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("model.layers.0.w", "model.layers.0.w"),
        ("Übung 模型 τ", "Übung 模型 τ"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x9b\u202e\ufeff\ud800", "\\x9b\\u202e\\ufeff\\ud800"),
        (3, "3"),
    ],
)
def test_plain(text, shown):
    assert plain(text) == shown


def test_block_keeps_lines():
    assert block("a:\n\tb\x1b[2J\r\n") == "a:\n    b\\x1b[2J\\r\n"


def test_shortened():
    assert shortened("abcdefghij", 10) == "abcdefghij"
    assert shortened("abcdefghijk", 10) == "abcde…hijk"
    assert quoted("x" * 10**6, 11) == "'xxxxx…xxxxx'"
    # What is spelled out takes at most ten characters, as \U0001f600 does.
    assert len(shortened("\x1b" * 1000, 20)) <= 200


@hostile
def test_one_line_without_steering_characters(text):
    for shown in (plain(text), quoted(text), code(text), prose(text)):
        assert shown.isprintable()
        shown.encode()
    assert block(text).replace("\n", "").isprintable()


@given(st.text(st.characters(categories=["L", "N"], include_characters=" .-/"), max_size=40))
def test_harmless_names_stay_as_they_are(text):
    assert plain(text) == text
    assert code(f"a{text}a") == f"`a{text}a`"


def test_colours_of_reports_stay_and_nothing_else():
    assert colored("\x1b[1;31merror\x1b[0m: ok\n") == "\x1b[1;31merror\x1b[0m: ok\n"
    assert colored("\x1b[2J\x1b]0;t\x07\x1b[1mx") == "\\x1b[2J\\x1b]0;t\\x07\x1b[1mx"


@hostile
def test_a_terminal_gets_printable_text_and_colours_alone(text):
    stream = io.StringIO()
    Console(file=stream, force_terminal=True, color_system="standard").print(Text(text, style="red"))
    left = re.sub(r"\x1b\[[0-9;]*m", "", colored(stream.getvalue()))
    assert left.replace("\n", "").isprintable()


class _Texts(HTMLParser):
    """The text of an HTML page and the names of its elements."""

    def __init__(self, page):
        super().__init__()
        self.text, self.tags, self.cells, self._open = "", [], [], False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.cells, self._open = [*self.cells, ""], True

    def handle_endtag(self, tag):
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data):
        self.text += data
        if self._open:
            self.cells[-1] += data


def rendered(source):
    return _Texts(MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough").render(source))


@hostile
def test_code_in_a_paragraph_and_in_a_cell(text):
    expected = plain(text).replace("`", "\\x60").replace("|", "\\x7c")
    for source in (code(text), f"- {code(text)}", f"before {code(text)} after"):
        found = rendered(source)
        assert [tag for tag in found.tags if tag not in ("p", "ul", "li")] == ["code"]
        assert expected.strip() in found.text
    found = rendered(f"| a | b |\n|---|---|\n| {code(text)} | 7 |\n")
    assert (found.tags.count("td"), found.tags.count("code"), found.tags.count("tr")) == (2, 1, 2)
    assert set(found.tags) <= {"table", "thead", "tbody", "tr", "th", "td", "code"}
    assert [cell.strip() for cell in found.cells[2:]] == [expected.strip(), "7"]


@hostile
def test_prose_in_a_paragraph_an_item_and_a_cell(text):
    expected = plain(text).strip(" ")
    for source in (prose(text), f"- {prose(text)}", f"Said: {prose(text)}"):
        found = rendered(source)
        assert set(found.tags) <= {"p", "ul", "li"}
        assert found.text.strip().endswith(expected)
    found = rendered(f"| a | b |\n|---|---|\n| {prose(text)} | 7 |\n")
    assert set(found.tags) <= {"table", "thead", "tbody", "tr", "th", "td"}
    assert found.cells[2:] == [expected, "7"]


def test_prose_stays_readable():
    text = "rounding to bfloat16 erased 12% of math; use --rounding stochastic (arXiv:2306.01708, down_proj: 3)"
    assert prose(text) == text


@hostile
def test_fenced(text):
    found = MarkdownIt("commonmark").parse(f"before\n\n{fenced(text, 'yaml')}\n\nafter")
    fences = [token for token in found if token.type == "fence"]
    assert [(fence.info, fence.content) for fence in fences] == [("yaml", f"{block(text)}\n")]
    assert [token.type for token in found if token.nesting >= 0] == [
        "paragraph_open", "inline", "fence", "paragraph_open", "inline",
    ]  # fmt: skip


def test_displayed_data():
    data = {"a\n": ["\x1b", 1, None, {"yaml": "x\n\ty\x07"}], "yaml": 3}
    assert displayed(data) == {"a\\n": ["\\x1b", 1, None, {"yaml": "x\n    y\\x07"}], "yaml": 3}
    assert data["a\n"][0] == "\x1b"


def test_displayed_dataclasses():
    @dataclass(frozen=True)
    class Inner:
        name: str
        yaml: str
        path: Path

    @dataclass(frozen=True)
    class Outer:
        inner: tuple[Inner, ...]
        counts: dict[int, float]

    given = Outer((Inner("a\nb", "x\ny\x07", Path("p\n")),), {-3: 0.5})
    assert displayed(given) == Outer((Inner("a\\nb", "x\ny\\x07", Path("p\n")),), {-3: 0.5})
