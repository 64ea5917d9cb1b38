"""What the verdict rules and the recommendation look at."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rlmerge.frozen import frozen
from rlmerge.inspection.results import Expert, Forecast, Group, Model, Pair, TensorRow


@frozen(slots=True)
class Difference:
    """A way in which an expert's files differ from the base's: ``aspect`` is config, vocabulary or chat template."""

    expert: str
    aspect: str
    detail: str


@frozen
class Evidence:
    """Measurements of one inspection. ``gram`` [K, K] holds ⟨τ_a, τ_b⟩."""

    base: Model
    experts: tuple[Expert, ...]
    pairs: tuple[Pair, ...]
    rows: tuple[TensorRow, ...]
    forecasts: tuple[Forecast, ...]
    structure: tuple[str, ...]
    identities: tuple[Difference, ...]
    gram: npt.NDArray[np.float64]
    routers: Group | None = None

    def forecast(self, method: str) -> Forecast | None:
        """The forecast of ``method`` with its default parameters."""
        return next((f for f in self.forecasts if f.method == method and not f.parameters), None)

    def figure(self, key: str) -> list[float]:
        """One figure of every expert."""
        return [expert.figures[key].value for expert in self.experts]

    def pair_figure(self, key: str) -> list[float]:
        """One figure of every pair."""
        return [pair.figures[key].value for pair in self.pairs]

    @property
    def moved(self) -> list[Expert]:
        """The experts that differ from the base."""
        return [expert for expert in self.experts if expert.figures["norm"].value > 0]
