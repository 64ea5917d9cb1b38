"""What writing an adapter did, module by module."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlmerge.adapters.lowrank import share
from rlmerge.frozen import frozen


@frozen
class ModuleResult:
    """One module of an adapter: ``rank`` of its factors (None where it is stored whole), the rank that would be exact.

    ``lost`` and ``total`` are squared Frobenius norms: of what the factors lack of the update, and of the update.
    """

    name: str
    rank: int | None
    exact_rank: int | None
    lost: float
    total: float

    @property
    def residual(self) -> float:
        """The relative norm of what the factors lack."""
        return share(self.lost, self.total)


@frozen
class AdapterResult:
    """An adapter that was written to ``out``, in ``nbytes`` of weights."""

    out: Path
    base: str
    modules: tuple[ModuleResult, ...]
    nbytes: int
    warnings: tuple[str, ...] = ()

    @property
    def residual(self) -> float:
        """The relative norm, over all modules, of what the adapter lacks of the updates."""
        return share(sum(module.lost for module in self.modules), sum(module.total for module in self.modules))

    def to_dict(self) -> dict[str, Any]:
        """The result as plain data."""
        modules = [asdict(module) | {"residual": module.residual} for module in self.modules]
        return {
            "out": str(self.out),
            "base": self.base,
            "bytes": self.nbytes,
            "residual": self.residual,
            "modules": modules,
            "warnings": list(self.warnings),
        }
