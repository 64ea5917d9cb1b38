"""Errors with the three things a reader needs: what is wrong, where, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable

from rlmerge.text import indented, plain

_LONGEST = 200
"""Characters up to which a name may be a typo; comparing takes time in proportion to the product of two lengths."""


class RlmergeError(Exception):
    """Base of every error rlmerge raises on purpose.

    ``what`` is one sentence; ``where`` names the file, tensor, or line of the recipe; ``hint`` is the next step.
    ``exit_code`` is what the command line returns: 2 when the request or an input is wrong and nothing was written,
    1 when a run failed and can be resumed. The three are kept as they were given; ``str`` makes them safe to show.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{plain(self.where)}: {self.what}" if self.where else self.what
        return indented(f"{text}\n{self.hint}" if self.hint else text)


class RequestError(RlmergeError):
    """The request or one of its inputs is wrong; nothing was written."""

    exit_code = 2


class CheckpointError(RequestError):
    """A model directory or safetensors file is malformed, unsafe, or not what was asked for."""


class RecipeError(RequestError):
    """Everything that is wrong with a recipe, at once: ``problems`` holds one error per finding."""

    def __init__(self, problems: Iterable[RequestError]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __str__(self) -> str:
        return self.what


class RunError(RlmergeError):
    """A run failed part way; its journal is kept and ``--resume`` continues it."""


def nearest(name: str, options: Iterable[str]) -> str | None:
    """The option that ``name`` is most likely a typo of, or None."""
    if len(name) > _LONGEST:
        return None
    import difflib

    known = {option.lower().replace("-", "_"): option for option in options}
    found = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=1, cutoff=0.6)
    return known[found[0]] if found else None


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """A hint for an unknown ``name``: the nearest option, or the list of all of them."""
    options = sorted(options)
    close = nearest(name, options)
    return f"Did you mean '{close}'?" if close else f"Known: {', '.join(options) or 'none'}."
