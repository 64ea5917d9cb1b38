"""Per-sequence squared gradients of a whole microbatch from one forward and one backward pass.

The gradient of a linear layer's weight is Σ (output gradient)ᵀ × input over positions; formed sequence by sequence
inside the layer's backward, it gives every sequence's own gradient at no extra arithmetic, and only one is alive at a
time (the idea of Goodfellow 2015, arXiv 1510.01799, who needs only norms). An embedding is the same with rows for
inputs. Other modules that act on each sequence by itself (norms) run once a sequence on aliases of their parameters.
Anything else is Unsupported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from rlmerge.errors import RunError

Contribution = Callable[[int], Tensor]
"""A use's gradient of a parameter for one sequence of the microbatch."""


class Unsupported(Exception):
    """A module whose gradient cannot be told apart by sequence; the message says which and why."""


class Microbatch:
    """Adds squared per-sequence gradients to ``sums`` for the microbatches it watches.

    Raises Unsupported, here or in a watched forward pass before anything was added, when a module does not fit.
    """

    def __init__(self, model: nn.Module, sums: Mapping[Parameter, Tensor]) -> None:
        self._sums = sums
        # All modules with parameters, summed or not: which ones are summed must not change the order of arithmetic.
        self._modules = {module: name for name, module in model.named_modules() if _has_parameters(module)}
        uses = [p for module in self._modules for p in module.parameters(recurse=False)]
        self._tied = {parameter for parameter, times in Counter(uses).items() if times > 1}
        for module, name in self._modules.items():
            if _kind(module) == "other":
                if next(module.children(), None) is not None:
                    raise Unsupported(f"{name} ({type(module).__name__}) holds parameters beside its submodules")
                if any(parameter in self._tied for parameter in module.parameters()):
                    raise Unsupported(f"{name} ({type(module).__name__}) shares its parameters")
        self._size = 0
        self._seen: set[nn.Module] = set()
        self._in_forward = False
        self._waiting: dict[Parameter, list[Contribution]] = {}

    @contextmanager
    def watching(self, size: int) -> Generator[None]:
        """Watch one forward pass over ``size`` sequences; ``backward`` is to be called inside."""
        self._size, self._in_forward = size, True
        self._seen.clear()
        for module, name in self._modules.items():
            module.forward = self._forward(module, name)
        try:
            yield
        finally:
            for module in self._modules:
                del module.forward

    def backward(self, loss: Tensor) -> None:
        """Backward through the watched pass; afterwards every sequence's squares are in the sums.

        RunError when the model uses a weight other than through its module, which can only be seen now.
        """
        self._in_forward = False
        loss.backward()
        for module, name in self._modules.items():
            if any(parameter.grad is not None for parameter in module.parameters(recurse=False)):
                what = f"the model uses the weight of {name} ({type(module).__name__}) outside its module"
                raise RunError(what, hint="Use --batch-size 1.")
        with torch.no_grad():
            for parameter, contributions in self._waiting.items():
                for sequence in range(self._size):
                    total = contributions[0](sequence)
                    for contribution in contributions[1:]:
                        total = total + contribution(sequence)
                    self._add_square(parameter, total)
        self._waiting.clear()

    def _forward(self, module: Any, name: str) -> Callable[..., Any]:
        kind, original = _kind(module), module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            self._check(module, name, args)
            if kind == "linear":
                return _Linear.apply(args[0], module.weight, module.bias, self._linear)
            if kind == "embedding":
                return _Rows.apply(module.weight, args[0], module.padding_idx, self._embedding)
            return self._one_by_one(module, name, original, args, kwargs)

        return forward

    def _check(self, module: nn.Module, name: str, args: Sequence[Any]) -> None:
        if not self._in_forward:  # gradient checkpointing runs layers again
            return
        if module in self._seen:
            raise Unsupported(f"{name} ({type(module).__name__}) runs more than once a pass")
        self._seen.add(module)
        x: Any = args[0] if args else None
        apart = isinstance(x, Tensor) and x.dim() >= (3 if x.is_floating_point() else 2) and x.shape[0] == self._size
        if not apart:
            raise Unsupported(f"{name} ({type(module).__name__}) does not see sequences apart")

    def _linear(self, weight: Parameter, bias: Parameter | None, x: Tensor, gradient: Tensor) -> None:
        def of_weight(sequence: int) -> Tensor:
            return gradient[sequence].flatten(0, -2).T @ x[sequence].flatten(0, -2)

        self._add(weight, of_weight)
        if bias is not None:
            self._add(bias, lambda sequence: gradient[sequence].flatten(0, -2).sum(0))

    def _embedding(self, weight: Parameter, ids: Tensor, padding: int | None, gradient: Tensor) -> None:
        if weight not in self._sums:
            return

        # Positions of one token are summed one after the other, which bfloat16 would round each time.
        wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))

        def rows(sequence: int) -> tuple[Tensor, Tensor]:
            unique, position = ids[sequence].unique(return_inverse=True)
            summed = torch.zeros(len(unique), wide.shape[-1], dtype=wide.dtype, device=wide.device)
            summed.index_add_(0, position, wide[sequence])
            return unique, summed if padding is None else summed.masked_fill_((unique == padding)[:, None], 0)

        if weight in self._tied:
            self._add(weight, lambda n: torch.zeros_like(weight, dtype=wide.dtype).index_add_(0, *rows(n)))
            return
        total = self._sums[weight]
        for sequence in range(self._size):
            unique, summed = rows(sequence)
            total.index_add_(0, unique.to(total.device), summed.to(total.device, total.dtype).square_())

    def _one_by_one(self, module: Any, name: str, original: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        """The module run once a sequence, each time on fresh leaves that share the parameters' memory."""
        own = dict(module._parameters)
        outputs: list[Any] = []
        try:
            for sequence in range(self._size):
                for key, parameter in own.items():
                    if parameter in self._sums:
                        module._parameters[key] = self._leaf(parameter)
                inputs = [self._part(value, sequence) for value in args]
                outputs.append(original(*inputs, **{key: self._part(v, sequence) for key, v in kwargs.items()}))
        finally:
            module._parameters.update(own)
        if not all(isinstance(output, Tensor) and output.shape[:1] == (1,) for output in outputs):
            raise Unsupported(f"{name} ({type(module).__name__}) does not return one tensor of sequences")
        return torch.cat(outputs)

    def _leaf(self, parameter: Parameter) -> Tensor:
        def square(leaf: Tensor) -> None:
            assert leaf.grad is not None
            self._add_square(parameter, leaf.grad)
            leaf.grad = None

        leaf = parameter.detach().requires_grad_()
        leaf.register_post_accumulate_grad_hook(square)
        return leaf

    def _part(self, value: Any, sequence: int) -> Any:
        batched = isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == self._size
        return value[sequence : sequence + 1] if batched else value

    def _add(self, parameter: Parameter, contribution: Contribution) -> None:
        if parameter not in self._sums:
            return
        if parameter in self._tied:
            # The square of a sum of uses needs all uses; they are complete when the backward pass is.
            self._waiting.setdefault(parameter, []).append(contribution)
            return
        for sequence in range(self._size):
            self._add_square(parameter, contribution(sequence))

    def _add_square(self, parameter: Parameter, gradient: Tensor) -> None:
        total = self._sums[parameter]
        gradient = gradient.to(total.device, total.dtype)
        total.addcmul_(gradient, gradient)


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def _kind(module: nn.Module) -> str:
    if type(module) is nn.Linear:
        return "linear"
    if type(module) is nn.Embedding and module.max_norm is None and not (module.sparse or module.scale_grad_by_freq):
        return "embedding"
    return "other"


class _Linear(torch.autograd.Function):  # pyright: ignore[reportUntypedBaseClass]
    """``nn.functional.linear`` that hands input and output gradient to ``add`` in place of a weight gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Parameter, bias: Parameter | None, add: Callable[..., None]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.weight, ctx.bias, ctx.add = weight, bias, add
        return nn.functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        ctx.add(ctx.weight, ctx.bias, x, gradients[0])
        return gradients[0] @ ctx.weight if ctx.needs_input_grad[0] else None, None, None, None


class _Rows(torch.autograd.Function):  # pyright: ignore[reportUntypedBaseClass]
    """``nn.functional.embedding`` that hands ids and output gradient to ``add`` in place of a weight gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Parameter, ids: Tensor, padding: int | None, add: Callable[..., None]) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.weight, ctx.padding, ctx.add = weight, padding, add
        return nn.functional.embedding(ids, weight, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (ids,) = ctx.saved_tensors
        ctx.add(ctx.weight, ids, ctx.padding, gradients[0])
        return None, None, None, None
