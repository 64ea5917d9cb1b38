"""What a tensor is for, read off its name: module type and layer, for the common architectures."""

from __future__ import annotations

import re
from functools import lru_cache

from rlmerge.frozen import frozen

KINDS = {
    "embedding": r"(embed_tokens|word_embeddings|tok_embeddings|embeddings?|wte|wpe|embed_positions|embed_in)",
    "head": r"(lm_head|output_head|embed_out)",
    "expert gate": r"experts.*\.(gate_proj|w1)",
    "expert up": r"experts.*\.(up_proj|w3)",
    "expert down": r"experts.*\.(down_proj|w2)",
    "expert": r"experts",
    "router": r"(router|(mlp|ffn|feed_forward|block_sparse_moe|moe|mixer)\.gate|shared_expert_gate)",
    "norm": r"(norm|ln|layernorm|ln_f|ln_\d|.*_norm|.*layernorm|norm\d?)",
    "attention q": r"(q_proj|wq|query|q_a_proj|q_b_proj)",
    "attention k": r"(k_proj|wk|key)",
    "attention v": r"(v_proj|wv|value)",
    "attention qkv": r"(qkv_proj|query_key_value|c_attn|Wqkv|qkv|kv_a_proj_with_mqa|kv_b_proj)",
    "attention o": r"(o_proj|wo|out_proj|(self_attention|attention|attn)\.(dense|c_proj|output))",
    "MLP gate": r"(gate_proj|w1)",
    "MLP gate+up": r"gate_up_proj",
    "MLP up": r"(up_proj|w3|fc1|c_fc|fc_in|dense_h_to_4h)",
    "MLP down": r"(down_proj|w2|fc2|mlp\.c_proj|fc_out|dense_4h_to_h)",
}
"""Module types and how the dotted part of a name that ends in it looks; the first that matches counts."""

ROUTER = "router"
"""What sends tokens to the experts of a mixture; names differ too much for a part of them to find all."""

_PATTERNS = {kind: re.compile(rf"(?:^|\.){pattern}(?:\.|$)") for kind, pattern in KINDS.items()}
_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)(?:\.|$)")
_NUMBER = re.compile(r"(?:^|\.)\d+(?=\.|$)")


@frozen(slots=True)
class Place:
    """Where a tensor sits: its module type and, inside the stack of layers, its layer."""

    kind: str
    layer: int | None


def place(tensor: str) -> Place:
    """The place of the tensor called ``tensor``."""
    found = _LAYER.search(tensor)
    return Place(kind_of(tensor), int(found[1]) if found else None)


def kind_of(tensor: str) -> str:
    """The module type of the tensor called ``tensor``; names nobody knows become their own type, without numbers."""
    return _known_kind(_NUMBER.sub(".0", tensor)) or _own_kind(tensor)


@lru_cache(maxsize=4096)
def _known_kind(tensor: str) -> str | None:
    """The module type of a name in which every number that is a part of its own is 0: no pattern asks for another."""
    return next((kind for kind, pattern in _PATTERNS.items() if pattern.search(tensor)), None)


def _own_kind(tensor: str) -> str:
    layer = _LAYER.search(tensor)
    rest = tensor[layer.end() :] if layer else tensor
    rest = re.sub(r"\.(weight|bias)$", "", rest)
    return _NUMBER.sub("", rest).strip(".") or tensor
