"""What a user measured, as written on the command line: ``name=params:sparsity``."""

from __future__ import annotations

import re

from rlmerge.errors import RequestError
from rlmerge_lab.scaling.studies.law import Measured

_UNITS = {"": 1e-9, "K": 1e-6, "M": 1e-3, "B": 1.0, "T": 1e3}
_FORM = re.compile(
    r"(?P<name>[^=]+)=(?P<size>\d+(?:\.\d*)?(?:[eE]\d+)?)(?P<unit>[KMBT]?):(?P<share>\d*\.?\d+(?:[eE]-?\d+)?)(?P<percent>%?)"
)


def parse_measured(text: str) -> Measured:
    """``"mine=7.6B:0.72"`` or ``"mine=7600000000:72%"``; RequestError for anything else."""
    found = _FORM.fullmatch(text.strip())
    if not found:
        raise RequestError(
            f"'{text}' is no measurement",
            where="--measured",
            hint="Write name=params:sparsity, for example mine=7.6B:0.72 or mine=7615616512:72%.",
        )
    billions = float(found["size"]) * _UNITS[found["unit"]]
    sparsity = float(found["share"]) / (100 if found["percent"] else 1)
    if billions <= 0 or sparsity > 1:
        raise RequestError(
            f"'{text}' has {billions:g} billion parameters and a sparsity of {sparsity:g}",
            where="--measured",
            hint="The size must be positive and the sparsity between 0 and 1 (or 0% and 100%).",
        )
    return Measured(found["name"].strip(), billions, sparsity)
