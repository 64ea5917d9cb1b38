"""Text from files and users, made safe for the place where it is shown, and to fit it: one function for each medium.

Names of models, tensors and files, and strings of a config, may hold anything: escape sequences that steer a terminal,
line breaks that fake a line of output, marks that turn the reading direction, HTML, Markdown. HTML has its own function
in the standard library (``html.escape``), of text that went through ``plain``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

Data = TypeVar("Data")

_COLORS = re.compile(r"\x1b\[[0-9;]*m")
"""Colours and weights: the one escape sequence that our own reports write."""

_MARKUP = re.compile(r"[\\`*\[\]<>#!|~&@^$]|:(?=//|[\w+-]+:)|(?<![^\W_])_|_(?![^\W_])|(?<=\bwww)\.", re.IGNORECASE)
"""What begins or ends something in Markdown with the usual extensions; an underscore within a word does not."""

_OPENING = re.compile(r"^(\d*)([-+=.)])")
"""What at the start of a paragraph makes it an item of a list, a heading or a rule."""


def plain(text: object) -> str:
    """``text`` on one line: control and other invisible characters are spelled out, like ``\\x1b`` and ``\\u202e``."""
    shown = str(text)
    return shown if shown.isprintable() else "".join(c if c.isprintable() else _spelled(c) for c in shown)


def block(text: object) -> str:
    """``text`` of several lines: as ``plain``, but line breaks stay, and a tab becomes four spaces."""
    return "\n".join(plain(line.replace("\t", "    ")) for line in str(text).split("\n"))


def indented(text: object) -> str:
    """As ``block``, with two spaces before every line but the first: none of them can pass for a message of ours."""
    return block(text).replace("\n", "\n  ")


def shortened(text: object, limit: int = 80) -> str:
    """``plain`` text of at most ``limit`` characters, an ellipsis in its middle when some are left out."""
    shown = str(text)
    if len(shown) > limit:
        # Cut before anything is spelled out: the whole may be of any size.
        half = (limit - 1) // 2
        shown = f"{shown[: limit - 1 - half]}…{shown[-half:]}"
    return plain(shown)


def quoted(text: object, limit: int = 80) -> str:
    """A name in a message: ``shortened`` and between quotation marks."""
    return f"'{shortened(text, limit)}'"


def displayed(data: Data, lines: Sequence[str] = ("yaml",)) -> Data:
    """Plain data or dataclasses with every string in them, keys too, as ``plain``; paths as they are.

    Entries and fields called as in ``lines`` are as ``block``.
    """
    return _displayed(data, lines)


def _displayed(data: Any, lines: Sequence[str], name: str = "") -> Any:
    if isinstance(data, str):
        return block(data) if name in lines else plain(data)
    if isinstance(data, Mapping):
        return {plain(k) if isinstance(k, str) else k: _displayed(v, lines, str(k)) for k, v in data.items()}
    if is_dataclass(data) and not isinstance(data, type):
        shown = {f.name: _displayed(getattr(data, f.name), lines, f.name) for f in fields(data) if f.init}
        return replace(data, **shown)
    if isinstance(data, list | tuple):
        return type(data)(_displayed(value, lines) for value in data)
    return data


def colored(text: str) -> str:
    """A finished report for a terminal: line breaks and colours stay, every other control character is spelled out."""
    kept = _COLORS.findall(text)
    parts = [block(part) for part in _COLORS.split(text)]
    return "".join(part + code for part, code in zip(parts, [*kept, ""], strict=True))


def fit(text: str, units: float, *, size: float = 7.0) -> str:
    """``text`` cut in its middle to about ``units`` of width at ``size`` units a letter, a wide letter twice that."""
    room = int(units / size)
    if columns(text) <= room:
        return text
    head, tail = "", ""
    for front, back in zip(text, reversed(text), strict=True):
        if columns(head + front + tail) > room - 1:
            break
        head += front
        if columns(head + back + tail) > room - 1:
            break
        tail = back + tail
    return f"{head}…{tail}"


def columns(text: str) -> int:
    """Columns that ``text`` takes in a fixed-width font."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def code(text: object) -> str:
    """A name in Markdown, as a span of code: neither Markdown nor HTML in it counts, also in a cell of a table.

    What could end the span or the cell is spelled out (`` ` `` as ``\\x60``, ``|`` as ``\\x7c``).
    """
    shown = plain(text).replace("`", "\\x60").replace("|", "\\x7c")
    if not shown.strip(" "):
        return "` `"
    # Markdown strips one space from both ends when both have one.
    return f"` {shown} `" if shown.startswith(" ") and shown.endswith(" ") else f"`{shown}`"


def prose(text: object) -> str:
    """A sentence in Markdown that may hold foreign names: text of one paragraph or cell, in which nothing is markup."""
    shown = _MARKUP.sub(lambda found: _entity(found.group()), plain(text).strip(" "))
    return _OPENING.sub(lambda found: found[1] + _entity(found[2]), shown)


def fenced(text: str, language: str = "") -> str:
    """A block of code in Markdown, with a fence that does not occur in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{block(text)}\n{fence}"


def _entity(character: str) -> str:
    return f"&#{ord(character)};"


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
