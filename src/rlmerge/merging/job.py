"""One output tensor: where it comes from, what is done to it, and what must be known beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlmerge.checkpoint import OutputTensor, Source
from rlmerge.kernels.program import Operands
from rlmerge.methods import Method
from rlmerge.methods.method import Stages

if TYPE_CHECKING:
    from rlmerge.checkpoint.formats.quantised_encode import Encoder


@dataclass(eq=False, slots=True)
class Job:
    """Everything the executor knows of one output tensor; it asks nobody else.

    ``method`` None copies the first source, to which all others must be equal. ``models`` says for each expert which
    of the plan's models it is: the account of what survived adds up by model, and K may vary from job to job.
    ``values`` holds the recipe's parameters for this tensor by argument name, and what every formula may ask for:
    ``experts``, ``numel``, ``wide``, ``kind``, ``shape``, ``has_base`` and the names of ``further`` inputs. ``stages``
    are the statistics that the method needs; jobs of one ``scope`` share those over the whole model. With an
    ``encoder`` the ``output`` is only merged: it is written as several tensors.
    """

    output: OutputTensor
    method: Method | None
    base: Source | None
    experts: tuple[Source, ...]
    models: tuple[int, ...]
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    stages: Stages = ()
    extras: Mapping[str, tuple[Source, ...]] = field(default_factory=dict[str, tuple[Source, ...]])
    wide: bool = False
    scope: str = ""
    encoder: Encoder | None = None
    _inputs: tuple[Source, ...] = field(default=(), init=False, repr=False)
    _width: int | None = field(default=0, init=False, repr=False)

    @property
    def name(self) -> str:
        """The output tensor's name."""
        return self.output.name

    @property
    def outputs(self) -> tuple[OutputTensor, ...]:
        """The tensors that are written, in their order. The journal's entry of the last one says that all are there.

        Codes come first, as they cannot wait in memory, and then wide types before narrow ones.
        """
        if self.encoder is None:
            return (self.output,)
        codes, *rest = self.encoder.outputs
        return (codes, *sorted(rest, key=lambda output: -output.dtype.itemsize))

    @property
    def last(self) -> str:
        """The name of the last output."""
        return self.outputs[-1].name

    @property
    def operands(self) -> Operands:
        """Element types of what a kernel reads."""
        deltas = self.method is not None and self.method.space == "delta"
        base = None if self.base is None else self.base.dtype
        return Operands(base, tuple(x.dtype for x in self.experts), deltas, self.wide)

    @property
    def sources(self) -> tuple[Source, ...]:
        """Base and experts, in the order of the operands."""
        return (*(() if self.base is None else (self.base,)), *self.experts)

    @property
    def inputs(self) -> tuple[Source, ...]:
        """All that is read: base, experts and further inputs."""
        if not self._inputs:
            self._inputs = (*self.sources, *(source for sources in self.extras.values() for source in sources))
        return self._inputs

    @property
    def width(self) -> int | None:
        """Bytes of all inputs an element; None unless every input has as many elements as the output."""
        if self._width == 0:
            numel, inputs = self.output.numel, self.inputs
            even = all(each.numel == numel for each in inputs)
            self._width = sum(each.dtype.itemsize for each in inputs) if even else None
        return self._width

    @property
    def columns(self) -> int:
        """Length of a row: the last dimension; a vector is one row."""
        return self.output.shape[-1] if self.output.shape else 1

    @property
    def by_rows(self) -> bool:
        """Whether tiles of the merge must hold whole rows."""
        return self.method is not None and self.method.rows_field is not None and not self.whole

    @property
    def whole(self) -> bool:
        """Whether the merge needs the tensor in one piece."""
        return self.method is not None and self.method.is_whole(self.values)
