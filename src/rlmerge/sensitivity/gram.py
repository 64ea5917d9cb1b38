"""Gram matrices XᵀX of what enters every linear layer, which RegMean needs (Jin et al. 2023, arXiv 2212.09849)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from rlmerge.language.tokens import TokenSequence

Linears = Mapping[str, nn.Linear]


def linear_layers(model: nn.Module, parameters: Mapping[str, Parameter]) -> dict[str, nn.Linear]:
    """Linear layers by the stored name of their weight; a head tied to the embedding is left out."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    rows = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    found: dict[str, nn.Linear] = {}
    for module in model.modules():
        if isinstance(module, nn.Linear) and id(module.weight) not in rows:
            found[names[id(module.weight)]] = module
    return found


def shared_inputs(model: Any, linears: Linears, sequence: TokenSequence) -> dict[str, str]:
    """For each linear layer the first one that reads the very same input (query, key and value do), found by a run.

    They have one Gram matrix, which is collected and stored once.
    """
    owner: dict[int, str] = {}
    owners = {name: name for name in linears}
    alive: list[Tensor] = []

    def see(name: str, x: Tensor) -> None:
        alive.append(x)  # an id means nothing once its tensor is gone
        owners[name] = owner.setdefault(id(x), name)

    with _inputs(linears, see):
        _run(model, sequence)
    return owners


def accumulate_grams(
    model: Any, sequences: Sequence[TokenSequence], linears: Linears, device: Any, advance: Callable[[int], None]
) -> dict[str, Tensor]:
    """Σ xxᵀ over all tokens, prompt and response: one float32 matrix [inputs, inputs] a layer, kept on ``device``.

    Sequences go one by one, so that padding never enters, and each one's product is formed before it is added.
    """
    grams = {
        name: torch.zeros(linear.in_features, linear.in_features, device=device) for name, linear in linears.items()
    }

    def add(name: str, x: Tensor) -> None:
        flat = x.flatten(0, -2).float()
        grams[name] += (flat.T @ flat).to(device)

    with _inputs(linears, add):
        for sequence in sequences:
            _run(model, sequence)
            advance(1)
    return grams


@contextmanager
def _inputs(linears: Linears, see: Callable[[str, Tensor], None]) -> Generator[None]:
    def watch(name: str) -> Callable[..., None]:
        return lambda module, args: see(name, args[0])

    handles = [linear.register_forward_pre_hook(watch(name)) for name, linear in linears.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _run(model: Any, sequence: TokenSequence) -> None:
    ids = torch.tensor([sequence.ids], device=next(model.parameters()).device)
    with torch.no_grad():
        model(input_ids=ids, use_cache=False)
