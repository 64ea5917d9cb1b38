"""The float types a recipe can ask for, under all the names people write."""

from __future__ import annotations

from rlmerge.errors import RequestError
from rlmerge.recipe.words import printable

_SHORT = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32",
          "fp64": "float64", "double": "float64"}  # fmt: skip
_LONG = ("bfloat16", "float16", "float32", "float64")


def canonical_dtype(name: str, where: str) -> str:
    """``bfloat16``, ``float16``, ``float32`` or ``float64`` for any accepted spelling; RequestError for another."""
    plain = name.strip().removeprefix("torch.")
    long = _SHORT.get(plain, plain)
    if long not in _LONG:
        what = f"'{printable(name, 40)}' is not a type to merge in"
        raise RequestError(what, where=where, hint=f"Known: {', '.join(_LONG)}.")
    return long
