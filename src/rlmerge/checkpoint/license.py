"""The license a model's card states, and which of several is the strictest."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

_MAX_CARD = 1 << 20

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
    """The Hub license id in the front matter of ``README.md``; None where there is none that can be read."""
    try:
        with (directory / "README.md").open("rb") as handle:
            text = handle.read(_MAX_CARD).decode()
    except (OSError, UnicodeDecodeError):
        return None
    if not text.startswith("---\n"):
        return None
    head, found, _ = text[4:].partition("\n---")
    if not found:
        return None
    try:
        matter: Any = yaml.safe_load(head)
    except yaml.YAMLError:
        return None
    stated = matter.get("license") if isinstance(matter, dict) else None
    return stated.lower() if isinstance(stated, str) else None


def strictest(licenses: Iterable[str | None]) -> str | None:
    """The strictest of the stated licenses; ``other`` when one is not in ``STRICTNESS``, None when any is unstated."""
    stated = list(licenses)
    if not stated or any(x is None for x in stated):
        return None
    if any(x not in STRICTNESS for x in stated):
        return "other" if len(set(stated)) > 1 else stated[0]
    return max((x for x in stated if x), key=STRICTNESS.index)
