"""From the factors of an update to the tensors that it changes: which way round they lie, and which rows are whose."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rlmerge.checkpoint.formats.adapter_config import AdapterConfig
from rlmerge.checkpoint.formats.adapter_names import Stack
from rlmerge.checkpoint.formats.adapter_products import Dora, Factor, LowRank, Update
from rlmerge.checkpoint.formats.adapter_sources import Changed
from rlmerge.checkpoint.source import Source
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen


def layer_tensor(name: str, base: Source, ground: Source, update: Update, fan_in_fan_out: bool) -> Changed | None:
    """The weight of a layer or embedding under its update; None where the factors do not fit its shape.

    Layers lie as [out, in], convolutions as [out, in, …], and GPT-2's layers and all embeddings as [in, out]; only
    where that is square ``fan_in_fan_out`` decides.
    """
    rank, shape = update.rank, base.shape
    inner, outer = math.prod(update.a.shape[1:]), update.b.shape[0]
    if math.prod(update.b.shape[2:]) != 1:
        return None
    flat = (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (0, 0)
    straight, turned = flat == (outer, inner), len(shape) == 2 and flat == (inner, outer)
    if update.is_embedding:
        straight = False
    elif straight and turned:
        straight = not fan_in_fan_out or update.parameter is not None
    a = Factor(update.a, 0, 0, 1, inner, rank)
    b = Factor(update.b, 0, 0, rank, 1, rank)
    if straight:
        left, right, size = b, a, (1, outer, inner)
    elif turned:
        left, right, size = a, b, (1, inner, outer)
    else:
        return None
    magnitude = update.magnitude
    if magnitude is None:
        return LowRank(name, base, ground, update, left, right, size)
    if magnitude.numel != outer:
        return None
    return Dora(name, base, ground, update, left, right, size, magnitude)


@frozen
class Factors:
    """What an adapter holds for a parameter of all experts: ``a`` [experts·rank, in], ``b`` [out, rank·experts]."""

    module: str
    a: Source
    b: Source

    @property
    def inner(self) -> int:
        return self.a.shape[1]

    @property
    def outer(self) -> int:
        return self.b.shape[0]

    def fits(self, stack: Stack) -> bool:
        """Whether their product has the parameter's shape, one way round or the other."""
        shapes = ((self.outer, self.inner), (self.inner, self.outer))
        return (stack.rows, stack.cols) in shapes and self.a.shape[0] % stack.experts == 0


def expert_tensors(
    factors: Sequence[Factors], stacks: Sequence[Stack], config: AdapterConfig, where: str
) -> Iterator[LowRank]:
    """The tensors of one layer's experts, of which ``factors`` change some of the parameters ``stacks``.

    Which parameter is meant is not in the names but in the order in which PEFT wrapped them, so the shapes must tell;
    so must they which way round it lies, which differs between models and versions of PEFT but is the same for all
    parameters of a module. CheckpointError where they do not.
    """
    chosen = [_choose(pair, stacks, where) for pair in factors]
    turned = {
        (stack.rows, stack.cols) == (pair.inner, pair.outer)
        for pair, stack in zip(factors, chosen, strict=True)
        if pair.inner != pair.outer
    }
    twice = len({stack.name for stack in chosen}) < len(chosen)
    if twice or len(turned) != 1:
        reason = "two updates fit one parameter" if twice else "its square matrices may lie either way round"
        what = f"what the experts' factors change is not recorded: {reason}"
        raise CheckpointError(what, where=f"{where}: {factors[0].module}", hint="Merge the adapter with PEFT.")
    for pair, stack in zip(factors, chosen, strict=True):
        rank = pair.a.shape[0] // stack.experts
        scale = config.scale(stack.name, rank)
        update = Update(pair.module, pair.a, pair.b, scale, rank, experts=stack.experts, parameter=stack.name)
        yield from _slab_tensors(stack, update, turned == {True})


def _choose(pair: Factors, stacks: Sequence[Stack], where: str) -> Stack:
    """The one parameter that the factors fit."""
    fits = [stack for stack in stacks if pair.fits(stack)]
    if len(fits) == 1:
        return fits[0]
    shapes = ", ".join(f"{stack.name} {[stack.experts, stack.rows, stack.cols]}" for stack in stacks)
    what = f"A {list(pair.a.shape)} and B {list(pair.b.shape)} fit {'several' if fits else 'none'} of {shapes}"
    hint = "Merge the adapter with PEFT." if fits else "Was the adapter trained on another model?"
    raise CheckpointError(what, where=f"{where}: {pair.module}", hint=hint)


def _slab_tensors(stack: Stack, update: Update, turned: bool) -> Iterator[LowRank]:
    """Each tensor of ``stack`` with its part of the update; ``turned`` where it lies as [experts, in, out]."""
    experts, rank, inner = stack.experts, update.rank, update.a.shape[1]
    for slab in stack.slabs:
        a = Factor(update.a, slab.expert * rank * inner, rank * inner, 1, inner, rank)
        b = Factor(update.b, slab.expert, 1, rank * experts, experts, rank)
        left, right = (a, b) if turned else (b, a)
        left = replace(left, start=left.start + slab.first * left.across)
        size = (experts if stack.whole else 1, slab.rows, stack.cols)
        yield LowRank(slab.tensor.name, slab.tensor, slab.tensor, update, left, right, size)
