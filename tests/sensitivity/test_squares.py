from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rlmerge.errors import RunError  # noqa: E402
from rlmerge.language.tokens import TokenSequence  # noqa: E402
from rlmerge.sensitivity.squares import accumulate_squares, response_loss  # noqa: E402
from support import tiny  # noqa: E402

SEQUENCES = [
    TokenSequence((1, 5, 9, 13, 17, 2), 3, "a"),
    TokenSequence((1, 4, 0, 20), 1, "b"),
    TokenSequence((1, 30, 7, 8, 21, 22, 23, 2), 5, "c"),
    TokenSequence((1, 11, 2), 2, "d"),
    TokenSequence((1, 6, 6, 6, 25, 26), 4, "e"),
]


def measured(model, sequences=SEQUENCES, names=None, **options):
    """Σ g² by parameter name, from the code under test."""
    chosen = {name: p for name, p in model.named_parameters() if names is None or name in names}
    sums = {p: torch.zeros(p.shape) for p in chosen.values()}
    done = []
    reason = accumulate_squares(model, sequences, sums, advance=done.append, **options)
    assert sum(done) == len(sequences)
    return {name: sums[p] for name, p in chosen.items()}, reason


def gradients(model, sequence):
    """∂/∂θ of −Σ log softmax(logits)[next token] over the response, written out and differentiated by autograd."""
    parameters = dict(model.named_parameters())
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    logits = model(input_ids=torch.tensor([sequence.ids])).logits[0]
    loss = -sum(
        torch.log(torch.exp(logits[t - 1, sequence.ids[t]]) / torch.exp(logits[t - 1]).sum())
        for t in range(sequence.start, len(sequence.ids))
    )
    return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))


def reference(model):
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for sequence in SEQUENCES:
        for name, gradient in gradients(model, sequence).items():
            total[name] += gradient**2
    return total


def assert_close(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        scale = expected[name].abs().max().item()
        assert scale > 0
        assert (value.double() - expected[name].double()).abs().max().item() <= tolerance * scale, name


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_equals_a_literal_autograd_loop_in_float64(tied, batch_size):
    model = tiny.llama(tied=tied, dtype="float64", bias=True)
    found, reason = measured(model, batch_size=batch_size)
    assert reason is None
    # Gradients are float64; the sums are float32, whose unit round-off is 6e-8, over five additions.
    assert_close(found, reference(model), 1e-6)


def test_is_not_the_square_of_the_batch_gradient():
    model = tiny.llama(dtype="float64")
    found, _ = measured(model, batch_size=5)
    summed = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for sequence in SEQUENCES:
        for name, gradient in gradients(model, sequence).items():
            summed[name] += gradient
    name = "model.layers.1.mlp.down_proj.weight"
    ratio = (summed[name] ** 2).sum() / found[name].double().sum()
    # Cross terms: independent gradients would give a ratio near 1, aligned ones 5; either way not equal per coordinate.
    assert not torch.allclose(summed[name] ** 2, found[name].double(), rtol=0.1)
    assert 0.2 < ratio < 5


def test_one_sequence_of_one_token_has_the_closed_form_of_logistic_regression():
    """For the head's row v the gradient is (p_v − 1[v = y])·h, as in multinomial logistic regression on features h."""
    model = tiny.llama(dtype="float64")
    sequence = TokenSequence((1, 5, 9), 2, "x")
    with torch.no_grad():
        features = model.model(input_ids=torch.tensor([[1, 5]])).last_hidden_state[0, -1]
        residual = torch.softmax(model.lm_head.weight @ features, 0)
    residual[9] -= 1
    found, _ = measured(model, [sequence])
    assert_close({"head": found["lm_head.weight"]}, {"head": torch.outer(residual, features) ** 2}, 1e-6)


@pytest.mark.parametrize("tied", [False, True])
def test_microbatches_agree_with_single_sequences_in_float32(tied):
    model = tiny.llama(tied=tied)
    alone, _ = measured(model, batch_size=1)
    together, reason = measured(model, batch_size=3)
    assert reason is None
    # float32 matrix products in another order: about 1e-6 of a gradient's scale, doubled by squaring.
    assert_close(together, alone, 1e-5)


def test_is_bitwise_reproducible():
    for batch_size in (1, 2):
        first, _ = measured(tiny.llama(), batch_size=batch_size)
        second, _ = measured(tiny.llama(), batch_size=batch_size)
        assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_group_of_parameters_gets_the_bits_it_gets_among_all(batch_size):
    model = tiny.llama(tied=True)
    whole, _ = measured(model, batch_size=batch_size)
    for group in (["model.embed_tokens.weight"], ["model.norm.weight", "model.layers.1.self_attn.q_proj.weight"]):
        part, _ = measured(model, names=group, batch_size=batch_size)
        assert list(part) == group or set(part) == set(group)
        assert all(torch.equal(part[name], whole[name]) for name in part)


def test_leaves_no_gradients_and_no_hooks_behind():
    model = tiny.llama()
    expected = model(input_ids=torch.tensor([[1, 2, 3]])).logits
    for batch_size in (1, 3):
        measured(model, batch_size=batch_size)
        assert all(p.grad is None and not p.requires_grad for p in model.parameters())
        assert not any("forward" in vars(module) for module in model.modules())
        assert torch.equal(model(input_ids=torch.tensor([[1, 2, 3]])).logits, expected)


def test_prompt_tokens_and_padding_do_not_enter_the_loss():
    model = tiny.llama(dtype="float64")
    alone = sum(response_loss(model, [sequence]).item() for sequence in SEQUENCES)
    assert response_loss(model, SEQUENCES).item() == pytest.approx(alone, rel=1e-12)
    whole = TokenSequence(SEQUENCES[0].ids, 1, "a")
    assert response_loss(model, [whole]).item() > response_loss(model, SEQUENCES[:1]).item()


def test_bfloat16_gradients_are_squared_and_summed_in_float32():
    model = tiny.llama(dtype="bfloat16")
    exact = reference(tiny.llama(dtype="bfloat16").double())
    for batch_size in (1, 5):
        found, _ = measured(model, batch_size=batch_size)
        assert all(value.dtype is torch.float32 for value in found.values())
        # bfloat16 keeps 8 bits; through two layers and a square a few percent of the largest entry remain.
        assert_close(found, exact, 0.15)
        # Sums rounded to bfloat16 would have no bits below the upper half.
        assert any((value.view(torch.int32) & 0xFFFF).any() for value in found.values())


def test_a_loss_that_is_not_finite_names_the_sequence():
    model = tiny.llama()
    model.lm_head.weight.data[3, 3] = float("nan")
    for batch_size in (1, 2):
        with pytest.raises(RunError, match="c: the loss is nan"):
            measured(model, batch_size=batch_size)
        assert not any("forward" in vars(module) for module in model.modules())
