"""Whatever stands in the files beside the weights, planning says what is wrong or plans: it never fails otherwise."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.identity import plan_identity
from rlmerge.checkpoint.reindex import layer_kinds, reindexed
from rlmerge.checkpoint.vocabulary import TokenizerSpec
from rlmerge.errors import RequestError
from rlmerge.inspection.identity import compare_identities
from support.tokenizers import tokenizer_json, write_tables, write_tokenizer

KEYS = [
    "vocab_size", "text_config", "vision_config", "eos_token_id", "pad_token_id", "rope_scaling",
    "rope_parameters", "rope_theta", "rope_type", "layer_types", "num_hidden_layers", "num_attention_heads",
    "hidden_size", "sliding_window", "max_window_layers", "use_sliding_window", "quantization_config", "auto_map",
    "model_type", "tie_word_embeddings", "chat_template", "added_tokens_decoder", "eos_token", "content",
    "default", "name", "template", "torch_dtype", "mlp_only_layers", "first_k_dense_replace",
    "decoder_sparse_step", "moe_layers", "partial_rotary_factor", "id", "max_position_embeddings", "quant_method",
    "suppress_tokens", "image_token_id", "0", "1", "7",
]  # fmt: skip

scalars = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.integers(0, 5) | st.floats() | st.text(max_size=6)
    | st.sampled_from(["a", "b", "<x>", "\ud800", "{{ x }}", "{% if %}", "full_attention", "yarn", "my.Class"])
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from(KEYS), values, max_size=8)


@pytest.fixture(scope="module")
def spoil(tmp_path_factory):
    """Plan for a base and an expert with nothing strange about them but one file, which holds ``data``."""
    root = tmp_path_factory.mktemp("models")
    for name in ("base", "expert"):
        write_tokenizer(
            write_tables(root / name, 4), ["a", "b", "c"], ["<x>"], chat="x", generation={"eos_token_id": 0}
        )

    def run(who, name, data):
        file = root / who / name
        before = file.read_bytes() if file.exists() else None
        file.write_bytes(data)
        try:
            plan()
        finally:
            file.unlink()
            if before is not None:
                file.write_bytes(before)

    def plan():
        try:
            models = [open_checkpoint(str(root / model)) for model in ("base", "expert")]
        except RequestError:
            return
        for spec in (None, TokenizerSpec("union"), TokenizerSpec("base"), TokenizerSpec(models[1])):
            try:
                found = plan_identity(models[0], models[1:], tokenizer=spec, trust_code=spec is None)
            except RequestError as error:
                assert str(error).isprintable() or "\n" in str(error)
                continue
            assert all(isinstance(text, str) for text in (*found.warnings, *found.notes))
            for model in models:
                for source in found.tensors(model).values():
                    source.read()
            if found.config is not None:
                for layers in ([], [0], [1, 0]):
                    try:
                        reindexed(found.config, layers, "model.layers")
                        layer_kinds(found.config, "model.visual.blocks")
                    except RequestError:
                        pass
        compare_identities(models, ["base", "expert"])

    return run


many = settings(max_examples=30, deadline=None)


@pytest.mark.parametrize("who", ["base", "expert"])
@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json", "added_tokens.json"],
)
@many
@given(content=objects | values)
def test_settings(spoil, who, name, content):
    spoil(who, name, json.dumps(content).encode())


added = st.fixed_dictionaries(
    {"id": st.integers(0, 9) | scalars, "content": st.sampled_from(["<x>", "<y>", "a"]) | scalars}
)


@pytest.mark.parametrize("who", ["base", "expert"])
@many
@given(
    vocabulary=st.dictionaries(st.sampled_from("abcd") | st.text(max_size=3), st.integers(0, 9) | scalars, max_size=5)
    | st.lists(st.tuples(st.text(max_size=2), st.floats()), max_size=4)
    | values,
    tokens=st.lists(added | values, max_size=4) | values,
    rest=objects,
)
def test_tokenizers(spoil, who, vocabulary, tokens, rest):
    content = tokenizer_json(["a"])
    content["added_tokens"] = tokens
    content["model"] = {"vocab": vocabulary, **rest}
    spoil(who, "tokenizer.json", json.dumps({**content, **rest}).encode())


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "chat_template.jinja", "config.json", "vocab.txt", "tokenizer.model"]
)
@many
@given(content=st.text(max_size=30) | st.sampled_from(["", "\0", "{", "[" * 5000, '{"a":' * 5000, "<html>"]))
def test_anything_at_all(spoil, name, content):
    spoil("base", name, content.encode("utf-8", "replace"))
