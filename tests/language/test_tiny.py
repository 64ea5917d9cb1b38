import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rlmerge.errors import CheckpointError, RequestError
from rlmerge.language import tiny

GROUPED = {
    "model_type": "llama",
    "hidden_size": 12,
    "intermediate_size": 10,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "vocab_size": 9,
    "rms_norm_eps": 1e-3,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
    "tie_word_embeddings": False,
}
PLAIN = {
    "model_type": "llama",
    "hidden_size": 12,
    "intermediate_size": 10,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 9,
    "rms_norm_eps": 1e-3,
    "rope_theta": 100.0,
    "tie_word_embeddings": True,
}


def write(directory: Path, config: dict, dtype=np.float32) -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)
    shapes = tiny.TinyConfig.parse(config, "config.json").shapes()
    weights = {name: random.normal(0.5 * (len(shape) == 1), 0.6, shape).astype(dtype) for name, shape in shapes.items()}
    save_file(weights, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config))
    return weights


def reference(config: dict, weights: dict[str, np.ndarray], tokens: list[int]) -> np.ndarray:
    """Llama written position by position and head by head in float64, with complex numbers for the rotation."""
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    groups = config.get("num_key_value_heads", heads)
    size = config.get("head_dim", hidden // heads)
    w = {name: weight.astype(np.float64) for name, weight in weights.items()}

    def norm(x, name):
        return x / np.sqrt((x**2).mean() + config["rms_norm_eps"]) * w[name]

    def rotated(x, position):
        turned = [
            complex(x[i], x[i + size // 2]) * np.exp(1j * position * 100.0 ** (-2 * i / size)) for i in range(size // 2)
        ]
        return np.array([z.real for z in turned] + [z.imag for z in turned])

    xs = [w["model.embed_tokens.weight"][token] for token in tokens]
    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        inner = [norm(x, p + "input_layernorm.weight") for x in xs]
        queries, keys, values = (
            [(w[f"{p}self_attn.{name}_proj.weight"] @ x).reshape(-1, size) for x in inner] for name in "qkv"
        )
        for now in range(len(tokens)):
            heard = []
            for head in range(heads):
                group = head // (heads // groups)
                query = rotated(queries[now][head], now)
                scores = [query @ rotated(keys[t][group], t) / np.sqrt(size) for t in range(now + 1)]
                weight = np.exp(scores) / np.exp(scores).sum()
                heard.append(sum(weight[t] * values[t][group] for t in range(now + 1)))
            xs[now] = xs[now] + w[p + "self_attn.o_proj.weight"] @ np.concatenate(heard)
        for now, x in enumerate(xs):
            inner = norm(x, p + "post_attention_layernorm.weight")
            gate = w[p + "mlp.gate_proj.weight"] @ inner
            silu = gate / (1 + np.exp(-gate))
            xs[now] = x + w[p + "mlp.down_proj.weight"] @ (silu * (w[p + "mlp.up_proj.weight"] @ inner))
    head = w["model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"]
    return np.stack([head @ norm(x, "model.norm.weight") for x in xs])


@pytest.mark.parametrize("config", [GROUPED, PLAIN], ids=["grouped-untied", "plain-tied"])
def test_logits_equal_a_float64_reference(tmp_path, config):
    weights = write(tmp_path, config)
    tokens = np.random.default_rng(1).integers(0, 9, (3, 7))
    expected = np.stack([reference(config, weights, list(row)) for row in tokens])
    # float32 keeps 7 digits; two layers of sums over 12 terms leave 5 of logits near 10.
    np.testing.assert_allclose(tiny.load(tmp_path).logits(tokens), expected, rtol=1e-4, atol=1e-4)


def test_start_skips_positions_and_later_tokens_change_nothing(tmp_path):
    write(tmp_path, PLAIN)
    model = tiny.load(tmp_path)
    tokens = np.array([[1, 2, 3, 4, 5]])
    np.testing.assert_allclose(model.logits(tokens, 3), model.logits(tokens)[:, 3:], rtol=1e-5, atol=1e-5)
    changed = np.array([[1, 2, 3, 8, 0]])
    np.testing.assert_allclose(model.logits(changed)[:, :3], model.logits(tokens)[:, :3], rtol=1e-5, atol=1e-5)


def test_greedy_takes_the_most_likely_token_each_time(tmp_path):
    write(tmp_path, GROUPED)
    model = tiny.load(tmp_path)
    tokens = np.array([[1, 2], [3, 4]])
    continuation = model.greedy(tokens, 3)
    assert continuation.shape == (2, 3)
    full = np.concatenate([tokens, continuation], axis=1)
    assert (model.logits(full[:, :-1], 1).argmax(axis=-1) == continuation).all()


def test_half_precision_weights_are_widened(tmp_path):
    weights = write(tmp_path, PLAIN, np.float16)
    loaded = tiny.load(tmp_path).weights["model.norm.weight"]
    assert loaded.dtype == np.float32
    assert (loaded == weights["model.norm.weight"].astype(np.float32)).all()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "qwen2"}, "model_type 'qwen2'"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"attention_bias": True}, "attention_bias True"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type 'yarn'"),
    ],
)
def test_other_architectures_are_refused_by_name(change, named):
    with pytest.raises(RequestError, match=named):
        tiny.TinyConfig.parse({**GROUPED, **change}, "m/config.json")


@pytest.mark.parametrize(
    "change", [{"hidden_size": None}, {"num_key_value_heads": 3}, {"head_dim": 5}, {"vocab_size": -1}]
)
def test_broken_configurations_are_refused(change):
    with pytest.raises(CheckpointError, match=r"m/config\.json: "):
        tiny.TinyConfig.parse({**GROUPED, **change}, "m/config.json")


def test_a_large_model_is_refused_before_its_weights_are_read(tmp_path):
    write(tmp_path, PLAIN)
    (tmp_path / "config.json").write_text(json.dumps({**PLAIN, "num_hidden_layers": 10**7}))
    with pytest.raises(RequestError, match="200,000,000 parameters"):
        tiny.load(tmp_path)


def test_weights_that_contradict_the_configuration_are_named(tmp_path):
    write(tmp_path, PLAIN)
    (tmp_path / "config.json").write_text(json.dumps({**PLAIN, "intermediate_size": 11}))
    with pytest.raises(CheckpointError, match=r"layers\.0\.mlp\.gate_proj.*\[11, 12\].*\[10, 12\]"):
        tiny.load(tmp_path)
