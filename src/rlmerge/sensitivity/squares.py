"""Sums over sequences of squared gradients: the diagonal Fisher before division by their number.

Per coordinate this is Σ_n (∂ℓ_n/∂θ)², which a batch's mean gradient cannot give: (Σ_n g_n)² has the cross terms that
cancel at an optimum. So every sequence's gradient has to exist by itself. The plain way, and the definition here, is
one backward pass a sequence; a hook squares a parameter's gradient the moment it is complete and frees it, so that no
more than one tensor's gradient is alive. ``microbatch`` shares the passes among sequences where the layers allow it.
``torch.func.vmap`` over whole models is not used: it keeps a copy of all gradients per sequence and stumbles over
data-dependent control flow in attention masks and expert routing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from rlmerge.errors import RunError
from rlmerge.language.tokens import TokenSequence
from rlmerge.sensitivity.microbatch import Microbatch, Unsupported

Sums = Mapping[Parameter, Tensor]


def accumulate_squares(
    model: Any, sequences: Sequence[TokenSequence], sums: Sums, *, batch_size: int = 1, advance: Callable[[int], None]
) -> str | None:
    """Add each sequence's squared gradient of −log π(response | prompt) to ``sums`` (float32, the parameters' shapes).

    Sequences go longest first, so that memory runs out at once or not at all. ``advance`` is told how many are done.
    Returns why ``batch_size`` could not be used and sequences went one by one, or None. Raises RunError when a loss is
    not finite.
    """
    model.requires_grad_(False)
    for parameter in sums:
        parameter.requires_grad_(True)
    ordered = sorted(sequences, key=lambda sequence: -len(sequence.ids))
    reason = None
    try:
        together = Microbatch(model, sums) if batch_size > 1 else None
    except Unsupported as error:
        together, reason = None, str(error)
    for index in range(0, len(ordered), batch_size):
        batch = ordered[index : index + batch_size]
        if together:
            try:
                _squares_together(model, batch, together)
            except Unsupported as error:
                together, reason = None, str(error)
        if not together:
            _squares_one_by_one(model, batch, sums)
        advance(len(batch))
    model.requires_grad_(False)
    return reason


def _squares_one_by_one(model: Any, batch: Sequence[TokenSequence], sums: Sums) -> None:
    with _squaring_hooks(sums):
        for sequence in batch:
            _checked_loss(model, [sequence]).backward()


def _squares_together(model: Any, batch: Sequence[TokenSequence], together: Microbatch) -> None:
    with together.watching(len(batch)):
        loss = _checked_loss(model, batch)
        together.backward(loss)


@contextmanager
def _squaring_hooks(sums: Sums) -> Generator[None]:
    def square(parameter: Tensor) -> None:
        assert parameter.grad is not None
        total = sums[parameter]  # pyright: ignore[reportArgumentType]
        gradient = parameter.grad.to(total.device, total.dtype)
        total.addcmul_(gradient, gradient)
        parameter.grad = None

    handles = [parameter.register_post_accumulate_grad_hook(square) for parameter in sums]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _checked_loss(model: Any, batch: Sequence[TokenSequence]) -> Tensor:
    loss = response_loss(model, batch)
    if not torch.isfinite(loss):
        raise RunError(
            f"the loss is {loss.item()}",
            where=batch[0].where,
            hint="Use --dtype float32, or check the model's weights.",
        )
    return loss


def response_loss(model: Any, batch: Sequence[TokenSequence]) -> Tensor:
    """−log π(response | prompt), summed over the response tokens of all sequences of the batch.

    Sequences are padded on the right, where no earlier token can see them.
    """
    device = next(model.parameters()).device
    length = max(len(sequence.ids) for sequence in batch)
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    present = torch.zeros(len(batch), length, dtype=torch.long)
    response = torch.zeros(len(batch), length, dtype=torch.bool)
    for row, sequence in enumerate(batch):
        end = len(sequence.ids)
        ids[row, :end] = torch.tensor(sequence.ids)
        present[row, :end] = 1
        response[row, sequence.start : end] = True
    ids, present, response = ids.to(device), present.to(device), response.to(device)
    logits = model(input_ids=ids, attention_mask=present, use_cache=False).logits
    predicted = response[:, 1:]
    logits = logits[:, :-1][predicted]
    if logits.dtype.itemsize < 4:
        logits = logits.float()
    return torch.nn.functional.cross_entropy(logits, ids[:, 1:][predicted], reduction="sum")
