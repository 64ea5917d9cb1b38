"""Sizes as people write them, read strictly: a unit is required, and GB and GiB differ."""

from __future__ import annotations

import re
from fractions import Fraction

import click

_PREFIXES = "kmgtp"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgtp])(i)?)?b", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes in ``5GB`` (5·10⁹), ``512MiB`` (512·2²⁰), ``1.5 GB`` or ``64B``; ValueError for anything else."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError(f"'{text}' is no size; write a number with a unit, like 2GB, 512MiB or 4096B")
    number, prefix, binary = found.groups()
    power = _PREFIXES.index(prefix.lower()) + 1 if prefix else 0
    size = Fraction(number) * (1024 if binary else 1000) ** power
    if size.denominator != 1 or size == 0:
        raise ValueError(f"'{text}' is not a whole, positive number of bytes")
    return int(size)


class Size(click.ParamType):
    """A click type for ``parse_size``."""

    name = "size"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
