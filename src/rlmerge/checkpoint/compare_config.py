"""In what two config.json differ that changes the computation: the same weights then make another model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from rlmerge.checkpoint.config import TEXT_SECTIONS, Config
from rlmerge.frozen import frozen

Kind = Literal["computation", "length", "unsaid"]

_NEVER = re.compile(
    r"""_.* | architectures | auto_map | (torch_)?dtype | transformers_version | model_type | use_cache | return_dict.*
      | (output|return)_(attentions|hidden_states|router_logits|past) | problem_type | id2label | label2id | num_labels
      | finetuning_task | task_specific_params | tokenizer_class | prefix | torchscript | pruned_heads | use_bfloat16
      | (quantization|compression)_config | attn_implementation | use_flash_attn.* | unsloth.*
      | gradient_checkpointing.* | pretraining_tp | ep_size | chunk_size_feed_forward | (padded_)?vocab_size | n_vocab
      | (bos|eos|pad)_token_id | .*drop(out|_path|path)?(_.*)? | .*_pdrop | .*layerdrop | .*dropout.*
      | init(ializer)?_.* | .*_initializer.* | .*_init_(scale|std|value).* | rescale_prenorm_residual
      | .*(aux|z)_loss.* | .*loss_(coef|weight|type).* | .*_coefficient | router_jitter_noise | mask_(time|feature)_.*
      | apply_spec_augment | classifier_.* | summary_.* | num_logits_to_keep | time_step_(min|max|floor|rank)
      | max_length | min_length | do_sample | early_stopping | num_beams.* | num_return_sequences | diversity_penalty
      | temperature | top_k | top_p | typical_p | min_p | repetition_penalty | length_penalty | no_repeat_ngram_size
      | encoder_no_repeat_ngram_size | bad_words_ids | (begin_)?suppress_tokens | forced_.* | remove_invalid_values
      | exponential_decay_length_penalty | tf_legacy_loss | use_mems_.* | model_max_length""",
    re.VERBOSE,
)
"""Keys that say nothing of what weights compute, or that are compared where they count."""

_LENGTHS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx")
_ROPE = ("rope_parameters", "rope_scaling", "rope_theta", "rotary_emb_base", "rope_local_base_freq",
         "global_rope_theta", "local_rope_theta", "partial_rotary_factor", "rotary_pct")  # fmt: skip

_DEFAULTS = {"rms_norm_eps": 1e-6, "hidden_act": "silu", "scale_attn_weights": True, "logit_scale": 1.0,
             "embedding_multiplier": 1.0, "residual_multiplier": 1.0, "logits_scaling": 1.0}  # fmt: skip
"""What most models of transformers take for a key that is not there; of any other key, null and false."""


@frozen(slots=True)
class Difference:
    """One value that is ``theirs`` in a model and ``ours`` in the one it is compared with.

    ``kind`` is computation where the same weights then compute something else, length where only the longest input
    differs, and unsaid where one file leaves the value to a default that is not known here.
    """

    key: str
    ours: Any
    theirs: Any
    kind: Kind

    def __str__(self) -> str:
        return f"{self.key} {_shown(self.theirs)} against {_shown(self.ours)}"


def compare_configs(ours: Config, theirs: Config) -> tuple[Difference, ...]:
    """Every difference that counts, by key; rotary embeddings, windows and heads as they work, however spelt."""
    mine, other = _normal(ours), _normal(theirs)
    _expand(mine, other)
    _expand(other, mine)
    found: list[Difference] = []
    types = ours.get("model_type"), theirs.get("model_type")
    if all(types) and types[0] != types[1]:
        found.append(Difference("model_type", *types, "computation"))
    for key in sorted({*mine, *other}):
        a, b = mine.get(key, _ABSENT), other.get(key, _ABSENT)
        name = key.rpartition(".")[2]
        kind: Kind = "length" if name in _LENGTHS else "computation"
        if _ABSENT in (a, b) and not key.startswith(_ROPE_PREFIX):
            stated = b if a is _ABSENT else a
            kind, b = "unsaid", _ABSENT if not stated or _same(_DEFAULTS.get(name), stated) else b
            if b is _ABSENT:
                continue
        if not _same(a, b):
            found.append(Difference(key.removeprefix(_ROPE_PREFIX), _value(a), _value(b), kind))
    return tuple(found)


_ABSENT = object()
_ROPE_PREFIX = "rope: "


def _expand(flat: dict[str, Any], nested: Mapping[str, Any]) -> None:
    """Where one side has a rotary embedding for each type of layer, the other's single one counts for all of them."""
    if f"{_ROPE_PREFIX}rope_theta" in nested:
        return
    kinds = {key.split(".")[0] for key in nested if key.startswith(_ROPE_PREFIX) and "." in key}
    for key in [key for key in flat if key.startswith(_ROPE_PREFIX) and "." not in key]:
        value = flat.pop(key)
        flat |= {f"{kind}.{key.removeprefix(_ROPE_PREFIX)}": value for kind in kinds}


def _value(value: Any) -> Any:
    return None if value is _ABSENT else value


def _same(a: Any, b: Any) -> bool:
    # 10000 and 10000.0 are one theta; true and 1 are not one setting.
    return a is b or (a == b and isinstance(a, bool) == isinstance(b, bool))


def _normal(config: Config) -> dict[str, Any]:
    """Values by key, those of the language model without its section's name and all others as ``section.key``."""
    text: dict[str, Any] = {key: value for key, value in config.items() if key not in TEXT_SECTIONS}
    for name in TEXT_SECTIONS:
        if isinstance(config.get(name), dict):
            text |= {key: value for key, value in config[name].items() if value is not None or key not in text}
    found: dict[str, Any] = {}
    _flatten(text, "", found)
    return found


def _flatten(section: Mapping[str, Any], prefix: str, found: dict[str, Any]) -> None:
    derived = _windows(_heads(dict(section)))
    for key, value in _rope(derived).items():
        found[f"{prefix or _ROPE_PREFIX}{key}"] = value
    for key, value in derived.items():
        if _NEVER.fullmatch(key) or key in _ROPE:
            continue
        if isinstance(value, dict):
            _flatten(value, f"{prefix}{key}.", found)
        else:
            found[f"{prefix}{key}"] = value


def _heads(section: dict[str, Any]) -> dict[str, Any]:
    """Without numbers that repeat what follows from others when they are not given."""
    heads, hidden = section.get("num_attention_heads"), section.get("hidden_size")
    if isinstance(heads, int) and heads > 0:
        if section.get("num_key_value_heads") in (None, heads):
            section.pop("num_key_value_heads", None)
        if section.get("head_dim") is None or (isinstance(hidden, int) and section["head_dim"] == hidden // heads):
            section.pop("head_dim", None)
    return section


def _windows(section: dict[str, Any]) -> dict[str, Any]:
    """Sliding windows as ``sliding_window`` and, unless no layer or every layer has one, ``layer_types``."""
    types, layers, first = (section.get(key) for key in ("layer_types", "num_hidden_layers", "max_window_layers"))
    switch = section.pop("use_sliding_window", None)
    section.pop("max_window_layers", None)
    if switch is True and types is None and isinstance(layers, int) and isinstance(first, int) and 0 < layers < 10_000:
        section["layer_types"] = ["full_attention" if i < first else "sliding_attention" for i in range(layers)]
    full = isinstance(types, list) and all(kind == "full_attention" for kind in types)
    if full or switch is False:
        section["layer_types"] = None
    # Where both are stated and disagree, libraries differ on which of them counts.
    if switch is False or (full and switch is None):
        section["sliding_window"] = None
    return section


def _rope(section: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary embeddings as version 5 of transformers writes them, by ``parameter`` or ``layer type.parameter``."""
    stated = section.get("rope_parameters")
    factor = section.get("partial_rotary_factor", section.get("rotary_pct"))
    if isinstance(stated, dict) and any(isinstance(value, dict) for value in stated.values()):
        kinds = {kind: value for kind, value in stated.items() if isinstance(value, dict)}
    elif isinstance(stated, dict):
        kinds = {"": {**_old(section), **stated}}
    else:
        kinds = {"": _old(section)}
        local = section.get("rope_local_base_freq", section.get("local_rope_theta"))
        if local is not None:
            kinds = {"full_attention": kinds[""], "sliding_attention": {"rope_theta": local}}
    found: dict[str, Any] = {}
    for kind, parameters in kinds.items():
        if "partial_rotary_factor" not in parameters and factor is not None:
            parameters = {**parameters, "partial_rotary_factor": factor}
        for key, value in _plain(parameters, section).items():
            found[f"{kind}.{key}" if kind else key] = value
    return found


def _old(section: Mapping[str, Any]) -> dict[str, Any]:
    """What version 4 spreads over ``rope_theta`` and ``rope_scaling``."""
    scaling = section.get("rope_scaling")
    found = dict(scaling) if isinstance(scaling, dict) else {}
    theta = next((section[k] for k in ("rope_theta", "rotary_emb_base", "global_rope_theta") if section.get(k)), None)
    return found if theta is None else {**found, "rope_theta": theta}


_SAME_TYPE = {"su": "longrope", "mrope": "default", None: "default"}
_TYPE_DEFAULTS = {"beta_fast": 32, "beta_slow": 1, "truncate": True, "partial_rotary_factor": 1.0}


def _plain(parameters: Mapping[str, Any], section: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is default or has no effect."""
    kind = parameters.get("rope_type", parameters.get("type"))
    kind = _SAME_TYPE.get(kind, kind) if isinstance(kind, str | None) else str(kind)
    if kind == "linear" and parameters.get("factor") in (None, 1):
        kind = "default"
    theta = parameters.get("rope_theta")
    found: dict[str, Any] = {"rope_type": kind, "rope_theta": 10000.0 if theta is None else theta}
    for key, value in parameters.items():
        counts = kind != "default" or key in ("mrope_section", "partial_rotary_factor", "mrope_interleaved")
        if key in ("rope_type", "type", "rope_theta") or value is None or not counts:
            continue
        if not _same(_TYPE_DEFAULTS.get(key), value):
            found[key] = value
    outside = section.get("original_max_position_embeddings")
    if kind != "default" and outside is not None:
        found.setdefault("original_max_position_embeddings", outside)
    return found


def _shown(value: Any) -> str:
    if value is None:
        return "unset"
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
