"""The license a model's card states, and which of several is the strictest."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from rlmerge.checkpoint.paths import read_start
from rlmerge.errors import CheckpointError

_MAX_MATTER = 1 << 20

_FENCE = re.compile(r"---[ \t]*")
_KEY = re.compile(r"""(license|"license"|'license')[ \t]*:(?P<value>[ \t].*|)""")
_VALUE = re.compile(r"""[ \t]*(?P<quote>["']?)(?P<id>[A-Za-z0-9][\w.+-]*)(?P=quote)[ \t]*([ \t]\#.*)?""", re.ASCII)
_NOT_TEXT = re.compile(r"true|false|yes|no|on|off|null|y|n|[0-9][0-9_.,:e+-]*", re.IGNORECASE)

STRICTNESS = (
    "unlicense",
    "cc0-1.0",
    "mit",
    "bsd-2-clause",
    "bsd-3-clause",
    "apache-2.0",
    "cc-by-4.0",
    "mpl-2.0",
    "lgpl-3.0",
    "cc-by-sa-4.0",
    "gpl-3.0",
    "agpl-3.0",
    "openrail",
    "gemma",
    "llama2",
    "llama3",
    "llama3.1",
    "llama3.2",
    "llama3.3",
    "llama4",
    "other",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "cc-by-nc-nd-4.0",
)
"""Hub license ids from permissive to strict: our ordering for a card, not legal advice."""


def read_license(directory: Path) -> str | None:
    """The Hub license id in the front matter of ``README.md``; None where there is none that can be read.

    Any file gives one of the two, in time proportional to its first MiB: the front matter is not parsed as YAML, but
    searched for the one line at its outer level that begins with ``license:``. A license that is given twice, in
    several lines, as a list or by an alias counts as unread.
    """
    try:
        text = read_start(directory / "README.md", _MAX_MATTER).decode("utf-8-sig", "replace")
    except (CheckpointError, OSError, ValueError):
        return None
    return license_of(text)


def license_of(card: str) -> str | None:
    """The same of the text of a card."""
    text = card[:_MAX_MATTER]
    lines = re.split(r"\r\n|\n|\r", text)
    if not _FENCE.fullmatch(lines[0]):
        return None
    end = next((number for number, line in enumerate(lines[1:], 1) if _FENCE.fullmatch(line)), None)
    if end is None:
        return None
    stated = [number for number in range(1, end) if _KEY.fullmatch(lines[number])]
    if len(stated) != 1 or _goes_on(lines[stated[0] + 1 : end]):
        return None
    key = _KEY.fullmatch(lines[stated[0]])
    value = _VALUE.fullmatch(key["value"]) if key else None
    if value is None or (not value["quote"] and _NOT_TEXT.fullmatch(value["id"])):
        return None
    return value["id"].lower()


def _goes_on(following: list[str]) -> bool:
    """Whether the lines after a value belong to it: they are indented, or an item of a list."""
    after = next((line for line in following if line.strip() and not line.lstrip().startswith("#")), "x")
    return after.startswith((" ", "\t", "-"))


def strictest(licenses: Iterable[str | None]) -> str | None:
    """The strictest of the stated licenses; ``other`` when one is not in ``STRICTNESS``, None when any is unstated."""
    stated = list(licenses)
    if not stated or any(x is None for x in stated):
        return None
    if any(x not in STRICTNESS for x in stated):
        return "other" if len(set(stated)) > 1 else stated[0]
    return max((x for x in stated if x), key=STRICTNESS.index)
