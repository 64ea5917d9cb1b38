from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rlmerge.errors import RunError  # noqa: E402
from rlmerge.language.tokens import TokenSequence  # noqa: E402
from rlmerge.sensitivity.squares import accumulate_squares  # noqa: E402
from support import tiny  # noqa: E402

SEQUENCES = [TokenSequence((1, 5, 9, 13, 2), 3, "a"), TokenSequence((1, 4, 4, 20), 1, "b")]


class Toy(torch.nn.Module):
    """Embedding, one layer and a head; ``layer(self, x)`` says how the layer is applied."""

    def __init__(self, layer, module=None):
        super().__init__()
        self.embed = torch.nn.Embedding(32, 4, dtype=torch.float64)
        self.inner = module or torch.nn.Linear(4, 4, dtype=torch.float64)
        self.head = torch.nn.Linear(4, 32, dtype=torch.float64)
        self.layer = layer

    def forward(self, input_ids, attention_mask, use_cache):
        return SimpleNamespace(logits=self.head(self.layer(self, self.embed(input_ids)).tanh()))


def sums_of(model, batch_size):
    sums = {parameter: torch.zeros(parameter.shape) for parameter in model.parameters()}
    reason = accumulate_squares(model, SEQUENCES, sums, batch_size=batch_size, advance=lambda done: None)
    return list(sums.values()), reason


def assert_agrees_with_single_sequences(model, reason=None):
    together, found = sums_of(model, 2)
    alone, _ = sums_of(model, 1)
    assert found == reason
    for a, b in zip(together, alone, strict=True):
        # float64 gradients summed in float32, whose unit round-off is 6e-8.
        assert b.max() > 0 and torch.allclose(a, b, rtol=1e-6, atol=1e-6 * b.max().item())


def test_a_layer_that_acts_on_each_sequence_runs_on_aliases():
    norm = torch.nn.LayerNorm(4, dtype=torch.float64)
    assert_agrees_with_single_sequences(Toy(lambda self, x: self.inner(x), norm))


def test_a_layer_that_runs_twice_falls_back():
    model = Toy(lambda self, x: self.inner(self.inner(x)))
    assert_agrees_with_single_sequences(model, "inner (Linear) runs more than once a pass")


def test_a_layer_that_sees_all_tokens_in_one_row_falls_back():
    model = Toy(lambda self, x: self.inner(x.flatten(0, 1)).view_as(x))
    assert_agrees_with_single_sequences(model, "inner (Linear) does not see sequences apart")


def test_parameters_beside_submodules_fall_back():
    class Scaled(torch.nn.Sequential):
        def __init__(self):
            super().__init__(torch.nn.Linear(4, 4, dtype=torch.float64))
            self.scale = torch.nn.Parameter(torch.full((4,), 2.0, dtype=torch.float64))

        def forward(self, x):
            return super().forward(x) * self.scale

    model = Toy(lambda self, x: self.inner(x), Scaled())
    assert_agrees_with_single_sequences(model, "inner (Scaled) holds parameters beside its submodules")


def test_a_weight_used_outside_its_module_is_an_error_not_a_wrong_number():
    model = Toy(lambda self, x: torch.nn.functional.linear(x, self.inner.weight))
    with pytest.raises(RunError, match=r"uses the weight of inner \(Linear\) outside its module"):
        sums_of(model, 2)


def test_learned_positions_fall_back():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=len(tiny.VOCABULARY), n_positions=32, n_embd=16, n_layer=1, n_head=2)
    model = tiny.seeded(GPT2LMHeadModel, config, torch.float64)
    assert_agrees_with_single_sequences(model, "transformer.wpe (Embedding) does not see sequences apart")
