"""Adds up the observations of tensors into the figures of experts, pairs, module types and layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from rlmerge.checkpoint.module_kinds import KINDS, ROUTER, place
from rlmerge.geometry.figures import chance_shared_exactly, overlap, shared_exactly, sparsity
from rlmerge.geometry.observation import Observation
from rlmerge.geometry.trend import trend
from rlmerge.inspection.results import Expert, Group, Model, Pair, TensorRow, TrendOf


@dataclass
class _Heap:
    seen: Observation
    tensors: int = 0

    def add(self, more: Observation) -> None:
        self.seen = self.seen + more
        self.tensors += 1


@dataclass
class Collector:
    """Takes the observation of one tensor after the other; memory does not grow with the size of a tensor."""

    models: Sequence[Model]
    dtype: str
    rows: list[TensorRow] = field(default_factory=list[TensorRow])

    def __post_init__(self) -> None:
        self.whole = _Heap(Observation.zero(len(self.models)))
        self._kinds: dict[str, _Heap] = {}
        self._layers: dict[int, _Heap] = {}

    def add(self, name: str, shape: tuple[int, ...], dtype: str, seen: Observation) -> None:
        """One whole tensor, observed for all K experts (those that lack it with no entries)."""
        where, count = place(name), len(self.models)
        figures = [sparsity(seen, k, dtype) for k in range(count)]
        unchanged, relative_norm, gini = (
            tuple(f[key].value if key in f else math.nan for f in figures)
            for key in ("unchanged_bits", "relative_norm", "gini")
        )
        bad = int(seen.nonfinite.max())
        self.rows.append(TensorRow(name, where.kind, where.layer, shape, dtype, unchanged, relative_norm, gini, bad))
        self.whole.add(seen)
        light = seen.with_magnitudes(())
        self._kinds.setdefault(where.kind, _Heap(Observation.zero(count))).add(light)
        if where.layer is not None:
            self._layers.setdefault(where.layer, _Heap(Observation.zero(count))).add(light)

    def experts(self) -> tuple[Expert, ...]:
        """Every expert over the whole model."""
        seen = self.whole.seen
        changed = [c / n if n else 0.0 for c, n in zip(seen.changed.tolist(), seen.finite.tolist(), strict=True)]
        return tuple(
            Expert(
                model,
                int(seen.entries[k]),
                int(seen.nonfinite[k]),
                sparsity(seen, k, self.dtype),
                shared_exactly(seen, k),
                chance_shared_exactly(changed, k),
                seen.magnitudes[k].by_exponent() if seen.magnitudes else {},
            )
            for k, model in enumerate(self.models)
        )

    def pairs(self) -> tuple[Pair, ...]:
        """Every pair over the whole model."""
        count = len(self.models)
        return tuple(
            Pair(self.models[a].name, self.models[b].name, overlap(self.whole.seen, a, b, self.dtype))
            for a in range(count)
            for b in range(a + 1, count)
        )

    def exactly(self) -> tuple[float, ...]:
        """Share of the coordinates any expert changed that exactly 1 … K changed."""
        exactly = self.whole.seen.exactly
        total = int(exactly.sum())
        return tuple(int(x) / total if total else math.nan for x in exactly)

    def modules(self) -> tuple[Group, ...]:
        """By module type, in the order in which a model is read."""
        order = list(KINDS)
        known = sorted(self._kinds, key=lambda kind: (order.index(kind) if kind in order else len(order), kind))
        return tuple(self._group(kind, self._kinds[kind]) for kind in known)

    def routers(self) -> Group | None:
        """The routers of a mixture of experts; None where there are none."""
        return self._group(ROUTER, self._kinds[ROUTER]) if ROUTER in self._kinds else None

    def layers(self) -> tuple[Group, ...]:
        """By layer, from the input on."""
        return tuple(self._group(str(layer), self._layers[layer]) for layer in sorted(self._layers))

    def trends(self) -> tuple[TrendOf, ...]:
        """Slopes over the layers of each expert's unchanged share and relative norm."""
        layers, positions = self.layers(), [float(layer) for layer in sorted(self._layers)]
        return tuple(
            TrendOf(model.name, key, trend(positions, values))
            for k, model in enumerate(self.models)
            for key, values in (
                ("unchanged_bits", [group.unchanged[k] for group in layers]),
                ("relative_norm", [group.relative_norm[k] for group in layers]),
            )
        )

    def _group(self, label: str, heap: _Heap) -> Group:
        seen, whole = heap.seen, self.whole.seen
        count = range(len(self.models))
        return Group(
            label,
            heap.tensors,
            int(seen.entries.max(initial=0)),
            tuple(_ratio(float(seen.finite[k] - seen.changed[k]), float(seen.finite[k])) for k in count),
            tuple(math.sqrt(_ratio(float(seen.square[k]), float(seen.base_square[k]))) for k in count),
            tuple(_ratio(float(seen.square[k]), float(whole.square[k])) for k in count),
        )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
