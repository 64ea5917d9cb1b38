from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rlmerge.language.tokens import TokenSequence  # noqa: E402
from rlmerge.sensitivity.gram import accumulate_grams, linear_layers, shared_inputs  # noqa: E402
from support import tiny  # noqa: E402

SEQUENCES = [TokenSequence((1, 5, 9, 13), 2, "a"), TokenSequence((1, 20, 21), 1, "b")]
LAYER = "model.layers.1."


def collected(model):
    linears = linear_layers(model, dict(model.named_parameters()))
    owners = shared_inputs(model, linears, SEQUENCES[0])
    done = []
    wanted = {name: linears[name] for name in dict.fromkeys(owners.values())}
    grams = accumulate_grams(model, SEQUENCES, wanted, "cpu", done.append)
    assert sum(done) == len(SEQUENCES)
    return linears, owners, grams


def test_is_the_sum_of_outer_products_of_the_inputs():
    model = tiny.llama(dtype="float64")
    _, _, grams = collected(model)
    expected = torch.zeros(16, 16, dtype=torch.float64)
    with torch.no_grad():
        for sequence in SEQUENCES:
            for x in model.model(input_ids=torch.tensor([sequence.ids])).last_hidden_state[0]:
                expected += torch.outer(x, x)
    # Summed in float32, whose unit round-off is 6e-8, over a handful of tokens.
    assert torch.allclose(grams["lm_head.weight"].double(), expected, rtol=1e-6, atol=1e-6 * expected.abs().max())
    assert grams["lm_head.weight"].dtype is torch.float32


def test_the_head_explains_the_outputs_energy():
    """tr(W G Wᵀ) is the sum of squared outputs: an identity RegMean rests on, tested on a layer's real outputs."""
    model = tiny.llama(dtype="float64")
    linears, _, grams = collected(model)
    down = linears[LAYER + "mlp.down_proj.weight"]
    outputs = []
    handle = down.register_forward_hook(lambda module, args, output: outputs.append(output))
    with torch.no_grad():
        for sequence in SEQUENCES:
            model(input_ids=torch.tensor([sequence.ids]))
    handle.remove()
    gram = grams[LAYER + "mlp.down_proj.weight"].double()
    energy = torch.trace(down.weight @ gram @ down.weight.T).item()
    assert energy == pytest.approx(sum(output.square().sum().item() for output in outputs), rel=1e-6)


def test_layers_that_read_the_same_input_share_a_matrix():
    _, owners, grams = collected(tiny.llama())
    query, gate = LAYER + "self_attn.q_proj.weight", LAYER + "mlp.gate_proj.weight"
    assert owners[LAYER + "self_attn.k_proj.weight"] == owners[LAYER + "self_attn.v_proj.weight"] == query
    assert owners[LAYER + "mlp.up_proj.weight"] == gate
    assert owners[LAYER + "self_attn.o_proj.weight"] == LAYER + "self_attn.o_proj.weight"
    assert len(grams) == 2 * 4 + 1 and len(owners) == 2 * 7 + 1
    assert grams[LAYER + "mlp.down_proj.weight"].shape == (24, 24)


def test_a_head_tied_to_the_embedding_has_none():
    model = tiny.llama(tied=True)
    linears = linear_layers(model, dict(model.named_parameters()))
    assert len(linears) == 14 and not any("head" in name or "embed" in name for name in linears)
