"""Words of a recipe in messages: safe to print, and compared with the words that were probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

MAX_SHOWN = 400
"""Characters of one message; what a recipe holds can be a million."""


def printable(text: str, limit: int = MAX_SHOWN) -> str:
    """``text`` on one line without control characters, which a terminal would obey, and cut in the middle."""
    if len(text) > limit:
        text = f"{text[: limit - limit // 3]}…{text[-(limit // 3) :]}"
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def near_miss(name: str, known: Iterable[str], shortest: int = 1) -> str | None:
    """The known word that ``name`` is within two edits of, whatever its case and dashes; None if there is none.

    An edit inserts, drops or replaces a letter, or swaps two neighbours. Known words below ``shortest`` letters do not
    count: nearly every short name is two edits from them.
    """
    name = name.lower().replace("-", "_")
    letters = frozenset(name) if len(name) <= _LONGEST else frozenset[str]()
    best, fewest = None, _EDITS + 1
    for word in known:
        # an edit changes the length by one and the set of letters by two: cheap to count, for a thousand unknown keys
        if len(word) < shortest or abs(len(word) - len(name)) > _EDITS or len(letters ^ _letters(word)) > 2 * _EDITS:
            continue
        edits = _distance(name, word.lower())
        if edits < fewest:
            best, fewest = word, edits
    return best


_LONGEST = 64
_EDITS = 2


@lru_cache(maxsize=1024)
def _letters(word: str) -> frozenset[str]:
    return frozenset(word.lower())


def _distance(one: str, other: str) -> int:
    """Edits between two words: optimal string alignment."""
    before: list[int] = []
    above = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, counterpart in enumerate(other, 1):
            edits = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (letter != counterpart))
            if i > 1 and j > 1 and letter == other[j - 2] and counterpart == one[i - 2]:
                edits = min(edits, before[j - 2] + 1)
            row.append(edits)
        before, above = above, row
    return above[-1]
