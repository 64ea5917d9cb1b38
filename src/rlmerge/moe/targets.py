"""The mixtures that transformers knows, in the parts that differ: names of tensors, configuration, what fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlmerge.checkpoint.config import Config
from rlmerge.checkpoint.reindex import reindexed
from rlmerge.errors import CheckpointError, RequestError, did_you_mean
from rlmerge.frozen import frozen

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
"""The three matrices of a gated MLP: down(act(gate x) * up x)."""

_CORE = (
    "input_layernorm.weight",
    "post_attention_layernorm.weight",
    *(f"self_attn.{name}_proj.weight" for name in "qkvo"),
)
_QKV_BIAS = tuple(f"self_attn.{name}_proj.bias" for name in "qkv")
_QK_NORM = ("self_attn.q_norm.weight", "self_attn.k_norm.weight")

_SAID: Mapping[str, Mapping[str, Any]] = {
    "llama": {"num_key_value_heads": None, "max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2},
    "mistral": {
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "qwen2": {"num_key_value_heads": 32, "max_position_embeddings": 32768},
    "qwen3": {"num_key_value_heads": 32, "max_position_embeddings": 32768, "head_dim": 128},
}
"""What transformers takes for keys that a dense configuration leaves out, where a mixture's default is another."""

_ANY = {"rms_norm_eps": 1e-6, "hidden_act": "silu", "tie_word_embeddings": False, "initializer_range": 0.02}

_DROPPED = frozenset(("architectures", "auto_map", "model_type", "mlp_bias", "attention_bias", "pretraining_tp",
                      "max_window_layers"))  # fmt: skip
"""Keys of dense models that say something else in a mixture, or nothing."""


@frozen
class Dense:
    """The sizes of the dense models: layers, width and width of the MLP; ``kind`` is the model_type."""

    kind: str
    layers: int
    hidden: int
    mlp: int


@frozen
class Target:
    """One architecture: what it is called, which dense models it takes, and where in a layer its tensors are.

    ``projections`` are its names for those of ``PROJECTIONS``. ``shared`` is the least and the largest number of shared
    experts, ``shared_prefix`` their place and ``shared_gate`` that of the row which weighs them. ``bias`` is the place
    of a score added before experts are chosen.
    """

    name: str
    model_type: str
    class_name: str
    kinds: tuple[str, ...]
    block: str
    projections: tuple[str, str, str]
    shared: tuple[int, int]
    least: int = 1
    shared_prefix: str | None = None
    shared_gate: str | None = None
    bias: str | None = None

    def check_counts(self, experts: int, shared: int, where: str) -> None:
        """RequestError for a number of experts or shared experts that the architecture lacks."""
        low, high = self.shared
        if not low <= shared <= high:
            wanted = {(0, 0): "no shared expert", (1, 1): "exactly one shared expert"}.get(
                self.shared, "at least one shared expert"
            )
            hint = (
                "Remove `shared_experts`, or give `architecture: deepseek`."
                if not high
                else "List under `shared_experts` what every token uses."
            )
            raise RequestError(f"{self.class_name} has {wanted}, not {shared}", where=where, hint=hint)
        if experts < self.least:
            what = f"{self.class_name} chooses from at least {self.least} experts, not {experts}"
            raise RequestError(what, where=where, hint="Add an expert.")


TARGETS: Mapping[str, Target] = {
    "mixtral": Target(
        "mixtral", "mixtral", "MixtralForCausalLM", ("llama", "mistral"), "block_sparse_moe", ("w1", "w3", "w2"), (0, 0)
    ),
    "qwen": Target(
        "qwen",
        "qwen2_moe",
        "Qwen2MoeForCausalLM",
        ("qwen2",),
        "mlp",
        PROJECTIONS,
        (1, 1),
        shared_prefix="mlp.shared_expert",
        shared_gate="mlp.shared_expert_gate.weight",
    ),
    "qwen3": Target("qwen3", "qwen3_moe", "Qwen3MoeForCausalLM", ("qwen3",), "mlp", PROJECTIONS, (0, 0)),
    # DeepSeek's own models have latent attention, which no dense model has; this is its mixture on plain attention.
    "deepseek": Target(
        "deepseek",
        "glm4_moe",
        "Glm4MoeForCausalLM",
        ("llama", "mistral", "qwen2", "qwen3"),
        "mlp",
        PROJECTIONS,
        (1, 512),
        least=2,
        shared_prefix="mlp.shared_experts",
        bias="mlp.gate.e_score_correction_bias",
    ),
}
"""Architectures by the name a configuration gives them."""


def choose_target(wish: str | None, kind: str, shared: int, where: str) -> Target:
    """The architecture asked for, else that of the base's family: for Llama and Mistral one that has shared experts
    where there are any. RequestError if dense models of ``kind`` have none, or not this one.
    """
    fitting = [target for target in TARGETS.values() if kind in target.kinds]
    if not fitting:
        known = sorted({name for target in TARGETS.values() for name in target.kinds})
        what = f"no mixture of experts is known for models of type '{kind}'"
        raise RequestError(what, where=where, hint=f"{did_you_mean(kind, known)} Others have no such architecture.")
    if wish is None:
        return TARGETS["deepseek"] if shared and fitting[0] is TARGETS["mixtral"] else fitting[0]
    target = TARGETS[wish]
    if target not in fitting:
        hint = f"For {kind}: {', '.join(each.name for each in fitting)}."
        raise RequestError(f"architecture {wish} is no mixture of '{kind}' models", where=where, hint=hint)
    return target


def layer_tensors(target: Target, kind: str, config: Config) -> tuple[str, ...]:
    """Names within a layer, its MLP apart, that dense models of ``kind`` store.

    CheckpointError for a part that the mixture has no place for.
    """
    found = _CORE
    if kind == "qwen2" or config.get("attention_bias"):
        if kind != "qwen2" and target.name != "qwen3":
            hint = "Its biases would be lost, and with them what it computes."
            raise CheckpointError(f"has biases in its attention; {target.class_name} has none", hint=hint)
        found += (*_QKV_BIAS, "self_attn.o_proj.bias") if config.get("attention_bias") else _QKV_BIAS
    return (*found, *_QK_NORM) if kind == "qwen3" else found


def mixture_config(target: Target, config: Config, dense: Dense, experts: int, shared: int, top: int) -> dict[str, Any]:
    """config.json of the mixture, with every value spelled out whose default differs.

    CheckpointError for sliding windows that the mixture cannot have.
    """
    base = {**_ANY, **_SAID[dense.kind], **config}
    if base.get("num_key_value_heads") is None:
        base["num_key_value_heads"] = base.get("num_attention_heads")
    theta = base.pop("rope_theta", None) or 10000.0
    stated = base.get("rope_parameters")
    # Some mixtures take another theta where none is given.
    base |= {"rope_parameters": {"rope_theta": theta, **stated}} if isinstance(stated, dict) else {"rope_theta": theta}
    window = _window(base, dense)
    if target.name in ("qwen3", "deepseek") and window is not None:
        what = f"has a sliding window of {window}; {target.class_name} has none"
        raise CheckpointError(what, hint="Set it aside in config.json if inputs stay shorter than that.")
    if target.name == "qwen" and window is not None:
        base = reindexed(base, range(dense.layers), "model.layers")
    kept = {key: value for key, value in base.items() if key not in _DROPPED}
    named = {"architectures": [target.class_name], "model_type": target.model_type}
    return {**named, **kept, **_own(target, base, dense, experts, shared, window), "num_experts_per_tok": top}


def _own(target: Target, config: Config, dense: Dense, experts: int, shared: int, window: int | None) -> dict[str, Any]:
    """Keys that only the mixture has. Weights of the chosen experts add up to 1, so that equal experts are the dense
    model.
    """
    if target.name == "mixtral":
        return {"num_local_experts": experts, "sliding_window": window}
    found: dict[str, Any] = {"moe_intermediate_size": dense.mlp, "norm_topk_prob": True}
    if target.name == "deepseek":
        parameters = config.get("rope_parameters")
        rope = {"rope_parameters": {**parameters, "partial_rotary_factor": 1.0}} if parameters else {}
        return {
            **found,
            **rope,
            "attention_bias": dense.kind == "qwen2",
            "use_qk_norm": dense.kind == "qwen3",
            "partial_rotary_factor": 1.0,
            "n_routed_experts": experts,
            "n_shared_experts": shared,
            "n_group": 1,
            "topk_group": 1,
            "routed_scaling_factor": 1.0,
            "first_k_dense_replace": 0,
            "num_nextn_predict_layers": 0,
        }
    found |= {"num_experts": experts, "decoder_sparse_step": 1, "mlp_only_layers": []}
    if target.name == "qwen":
        return {**found, "shared_expert_intermediate_size": dense.mlp, "qkv_bias": True}
    return {**found, "attention_bias": bool(config.get("attention_bias"))}


def _window(base: Config, dense: Dense) -> int | None:
    """The sliding window that some layer has."""
    window = base.get("sliding_window")
    if dense.kind == "llama" or (dense.kind.startswith("qwen") and base.get("use_sliding_window") is not True):
        return None
    return window if isinstance(window, int) and not isinstance(window, bool) else None


def expert_name(target: Target, layer: int, expert: int, projection: str) -> str:
    """Where an expert's matrix is stored."""
    place = target.projections[PROJECTIONS.index(projection)]
    return f"model.layers.{layer}.{target.block}.experts.{expert}.{place}.weight"
