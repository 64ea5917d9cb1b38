"""A base and experts of it as vectors in memory: merged by the engine, scaled, and rounded as files would be."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

import rlmerge
from rlmerge.checkpoint import OutputTensor, PartialDirectory, plan_shards
from rlmerge.checkpoint.model import open_checkpoint
from rlmerge.checkpoint.side_files import find_side_files
from rlmerge.errors import CheckpointError
from rlmerge.evaluate.landscape.weights import read_weights
from rlmerge.kernels.dtypes import DType, decode
from rlmerge.kernels.rounding import encode
from rlmerge.language.tiny import TinyConfig, TinyLlama, load

Vector = npt.NDArray[np.float32]

_ALL = 2**63


class Shaped(Protocol):
    """Knows the shape of each tensor, in the order in which a family holds them; equal for models of one shape."""

    def shapes(self) -> dict[str, tuple[int, ...]]: ...


@dataclass(frozen=True)
class Merge:
    """A merged model before rounding: θ₀ + ``delta``, ``delta`` [n] in float64.

    Exactly the formula's float32 output where nothing was scaled, since differences of float32 fit float64.
    """

    delta: npt.NDArray[np.float64]

    @cached_property
    def norm(self) -> float:
        """‖δ*‖₂."""
        return float(np.linalg.norm(self.delta))

    def scaled(self, factor: float) -> Merge:
        """The same direction, ``factor`` times as far."""
        return Merge(self.delta * factor)

    def with_norm(self, norm: float) -> Merge:
        """The same direction at another ‖δ*‖; a change of nothing stays nothing."""
        return self.scaled(norm / self.norm if self.norm else 0.0)


@dataclass(frozen=True, eq=False)
class Family:
    """``base`` [n] and ``experts`` [K, n] in float32, all weights end to end in the order of ``config``.

    ``dtype`` is what the base is stored in and merges are rounded to; ``paths`` are the experts' directories.
    """

    config: Shaped
    dtype: DType
    base: Vector
    experts: npt.NDArray[np.float32]
    home: Path
    paths: tuple[Path, ...]

    @classmethod
    def read(cls, base: Path, experts: Sequence[Path]) -> Family:
        """Read model directories; CheckpointError when they are no models of one shape."""
        (config, first), *others = (cls.read_model(path) for path in (base, *experts))
        for path, (found, _) in zip(experts, others, strict=True):
            if found != config:
                raise CheckpointError("is of another shape than the base", where=str(path), hint="Train it again.")
        dtypes = {info.dtype for name, info in open_checkpoint(base).tensors.items() if name in config.shapes()}
        if len(dtypes) != 1:
            hint = "Store it in one type, such as bfloat16."
            raise CheckpointError("mixes element types", where=str(base), hint=hint)
        flat = [_flat(weights, config) for _, weights in others]
        return cls(config, dtypes.pop(), _flat(first, config), np.stack(flat), base, tuple(experts))

    @staticmethod
    def read_model(path: Path) -> tuple[Shaped, Mapping[str, Any]]:
        """The shape and the weights of one model directory."""
        model = load(path)
        return model.config, model.weights

    @cached_property
    def base_norm(self) -> float:
        """‖θ₀‖₂."""
        return float(np.linalg.norm(self.base.astype(np.float64)))

    def change_norm(self, weights: Vector) -> float:
        """‖θ - θ₀‖₂ of ``weights`` [n]."""
        return float(np.linalg.norm(weights.astype(np.float64) - self.base))

    @cached_property
    def sum_norm(self) -> float:
        """‖Σ τ_k‖₂, the norm of task arithmetic's change at λ = 1."""
        return float(np.linalg.norm((self.experts.astype(np.float64) - self.base).sum(axis=0)))

    @cached_property
    def changed(self) -> npt.NDArray[np.bool_]:
        """Coordinates that any expert changed [n]."""
        return (self.experts != self.base).any(axis=0)

    def merge(self, method: str, parameters: Mapping[str, Any], seed: int) -> Merge:
        """Merge in memory; the change is that of the stored weights a merge of files with float32 output has."""
        states = [self.state(vector) for vector in (self.base, *self.experts)]
        with warnings.catch_warnings():
            # What a method has to say about a setting is for someone who chose it, not for a plan of trials.
            warnings.simplefilter("ignore")
            state = rlmerge.merge_state_dicts(states[0], states[1:], method, seed=seed, workers=1, **parameters)
        return self._change(_flat(state, self.config))

    def merge_files(
        self, method: str, parameters: Mapping[str, Any], seed: int, inputs: Mapping[str, Sequence[Path]]
    ) -> Merge:
        """The same with further measured ``inputs``, directories one per expert: a merge of files, read back."""
        measured = ({name: str(found[k]) for name, found in inputs.items()} for k in range(len(self.paths)))
        models = [{"model": str(path), **own} for path, own in zip(self.paths, measured, strict=True)]
        recipe = {"merge_method": method, "base_model": str(self.home), "models": models, "parameters": parameters}
        with tempfile.TemporaryDirectory(prefix="rlmerge-study-") as folder:
            out = Path(folder) / "merged"
            rlmerge.merge(recipe, out, seed=seed, workers=1, out_dtype="float32", cache=False)
            return self._change(_flat(self.read_model(out)[1], self.config))

    def exact(self, merge: Merge) -> Vector:
        """The merged weights as float32 [n]."""
        return (self.base + merge.delta).astype(np.float32)

    def stored(self, merge: Merge) -> Vector:
        """The merged weights once rounded to the base's type, nearest even, and read back [n]."""
        return decode(encode(self.base + merge.delta, self.dtype), self.dtype).astype(np.float32, copy=False)

    def model(self, weights: Vector) -> Any:
        """A model that evaluations of this family can score, over the memory of ``weights`` [n]."""
        assert isinstance(self.config, TinyConfig)
        return TinyLlama(self.config, self.state(weights))

    def write(self, merge: Merge, out: Path) -> None:
        """Write the merged weights, rounded, as the new model directory ``out``."""
        ready = self.state(self.stored(merge))
        shards = plan_shards([OutputTensor(name, self.dtype, array.shape) for name, array in ready.items()], 10**10)
        with PartialDirectory(out, "a merge of the study") as partial:
            for shard in shards:
                writer = partial.shard_writer(shard)
                for tensor in shard.tensors:
                    writer.write(tensor.name, encode(ready[tensor.name].reshape(-1), self.dtype))
                    writer.finish_tensor(tensor.name, {})
            for file in find_side_files(self.home):
                partial.copy_file(file)
            partial.seal(shards)

    def survival(self, merge: Merge, weights: Vector) -> dict[str, float]:
        """Of the coordinates any expert changed: which share differs from the base in ``weights`` [n] (``survived``),
        and which share the method moved but rounding took back (``erased``)."""
        total = int(self.changed.sum())
        differs = self.changed & (weights != self.base)
        erased = self.changed & (merge.delta != 0) & ~differs
        shares = {"survival": int(differs.sum()), "erased": int(erased.sum())}
        return {name: count / total if total else 0.0 for name, count in shares.items()}

    def _change(self, weights: Vector) -> Merge:
        return Merge(weights.astype(np.float64) - self.base)

    def state(self, weights: Vector) -> dict[str, Vector]:
        """``weights`` [n] as named tensors."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self.config.shapes().values()])
        parts = np.split(weights, ends[:-1])
        return {n: part.reshape(s) for (n, s), part in zip(self.config.shapes().items(), parts, strict=True)}


@dataclass(frozen=True, slots=True)
class Shapes:
    """The tensors of a language model as they are stored."""

    found: Mapping[str, tuple[int, ...]]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self.found)


class LanguageFamily(Family):
    """A base and experts of any architecture; what is scored are tensors by name."""

    @staticmethod
    def read_model(path: Path) -> tuple[Shaped, Mapping[str, Any]]:
        weights = read_weights(path, memory=_ALL)
        return Shapes({name: array.shape for name, array in weights.items()}), weights

    def model(self, weights: Any) -> Any:
        return self.state(weights)


def _flat(weights: Mapping[str, Any], config: Shaped) -> Vector:
    return np.concatenate([np.asarray(weights[name], np.float32).reshape(-1) for name in config.shapes()])
