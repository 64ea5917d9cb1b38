"""The float types a recipe can ask for, under all the names people write."""

from __future__ import annotations

from rlmerge.errors import RequestError
from rlmerge.recipe.words import printable

_SHORT = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32",
          "fp64": "float64", "double": "float64"}  # fmt: skip
_LONG = ("bfloat16", "float16", "float32", "float64")

LIKE_BASE = "like-base"
"""As an output type: whatever the base stores, its quantised weights in its own scheme."""


def canonical_dtype(name: str, where: str, *, output: bool = False) -> str:
    """``bfloat16``, ``float16``, ``float32`` or ``float64`` for any accepted spelling; RequestError for another.

    For an ``output`` it may also be ``like-base``.
    """
    plain = name.strip().removeprefix("torch.")
    long = _SHORT.get(plain, plain)
    known = (*_LONG, LIKE_BASE) if output else _LONG
    if long not in known:
        what = f"'{printable(name, 40)}' is not a type to merge in"
        raise RequestError(what, where=where, hint=f"Known: {', '.join(known)}.")
    return long
