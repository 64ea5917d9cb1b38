"""What a config.json says of quantised weights, and which methods can be decoded here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlmerge.errors import CheckpointError, did_you_mean
from rlmerge.frozen import frozen

Block = tuple[int, int]
"""Rows and columns that share a scale; 0 stands for the whole dimension."""

TENSOR, ROW, COLUMN, SQUARE, GROUP = (0, 0), (1, 0), (0, 1), (128, 128), (1, 32)

DECODED = ("fp8", "mxfp8", "fbgemm_fp8", "compressed-tensors", "mxfp4", "modelopt")
"""Values of quant_method whose weights are decoded."""

_AGAIN = "transformers (from_pretrained, then model.dequantize() and save_pretrained)"
_REWRITE = "convert_checkpoint of compressed-tensors"
CONVERTERS = {
    "gptq": "GPTQModel",
    "awq": _REWRITE,
    "bitsandbytes": _AGAIN,
    "nvfp4": _REWRITE,
    "auto-round": "AutoRound",
    "torchao": "torchao",
    "hqq": "HQQ",
    "quark": "AMD Quark",
    "quanto": "optimum-quanto",
    "eetq": "EETQ",
    "aqlm": "AQLM",
    "vptq": "VPTQ",
    "spqr": "SpQR",
    "higgs": _AGAIN,
    "bitnet": "BitNet",
    "fp_quant": "FP-Quant",
    "fouroversix": "Four Over Six",
    "sinq": "SINQ",
    "metal": "mlx-lm",
    "gguf": "transformers (from_pretrained with gguf_file=…, then save_pretrained)",
}
"""Methods that are recognised and refused, and what turns their weights into plain ones."""

_SIGNS = (
    (re.compile(r"\.(qweight|qzeros)$"), "gptq", "GPTQ or AWQ weights"),
    (re.compile(r"\.(absmax|nested_absmax)$|\.quant_state\."), "bitsandbytes", "4-bit bitsandbytes weights"),
    (re.compile(r"\.SCB$"), "bitsandbytes", "8-bit bitsandbytes weights"),
    (re.compile(r"(_scale_2|_global_scale)$"), "nvfp4", "NVFP4 weights"),
    (re.compile(r"\.(bitmask|compressed)$"), "", "sparse compressed-tensors weights"),
)
"""Names that give other formats away: pattern, method, what they are. They end so, or hold ``quant_state``."""

_CALLED = {
    "gptq": "GPTQ weights",
    "awq": "AWQ weights",
    "bitsandbytes": "bitsandbytes weights",
    "nvfp4": "NVFP4 weights",
    "gguf": "GGUF weights",
}


@frozen
class Quantisation:
    """``method`` as the config names it (None where it names none) and its whole entry."""

    method: str | None
    entry: Mapping[str, Any]

    def blocks(self, scale: str) -> tuple[Block, ...]:
        """The blocks that a scale called ``scale`` may have here, likeliest first."""
        if self.method in ("fp8", "mxfp8"):
            if "weight_block_size" not in self.entry:
                return (GROUP,) if self.method == "mxfp8" else (SQUARE, TENSOR)
            return (_pair(self.entry["weight_block_size"]),)
        if self.method == "fbgemm_fp8":
            return (ROW, COLUMN)
        if self.method == "modelopt":
            return (TENSOR, ROW)
        if self.method == "compressed-tensors":
            found = tuple(dict.fromkeys(block for weights in self.groups() for block in _block_of(weights)))
            if found:
                return found
        return (SQUARE, ROW, TENSOR) if scale.endswith("_inv") else (ROW, TENSOR, SQUARE)

    def groups(self) -> tuple[Mapping[str, Any], ...]:
        """How compressed-tensors quantised the weights of each of its groups of modules."""
        groups = self.entry.get("config_groups")
        each = groups.values() if isinstance(groups, dict) else ()
        found = (group.get("weights") for group in each if isinstance(group, dict))
        return tuple(weights for weights in found if isinstance(weights, dict))

    @property
    def bits(self) -> tuple[int, ...]:
        """The widths that packed integers may have."""
        stated = {weights.get("num_bits") for weights in self.groups()}
        return tuple(bits for bits in (4, 8) if bits in stated) or (4, 8)

    @property
    def power_of_two(self) -> bool:
        """Whether scales are powers of two although they are stored as wider floats."""
        return self.entry.get("scale_fmt") == "ue8m0"


def _pair(size: Any) -> Block:
    """Two positive sizes, or TENSOR where there are none."""
    if isinstance(size, list | tuple) and len(size) == 2 and all(type(x) is int and x > 0 for x in size):
        return size[0], size[1]
    return TENSOR


def _block_of(weights: Mapping[str, Any]) -> tuple[Block, ...]:
    strategy, group = weights.get("strategy"), weights.get("group_size")
    if type(group) is int and group > 0:
        return ((1, group),)
    named = {"tensor": TENSOR, "channel": ROW, "block": _pair(weights.get("block_structure"))}
    return (named[strategy],) if strategy in named else ()


def read_quantisation(config: Mapping[str, Any] | None, root: Path) -> Quantisation | None:
    """The config's entry, also where it is that of the language model in a larger one; None without one.

    CheckpointError if it is no object, names an unknown method, or says that weights were rotated.
    """
    entry: Any = None
    for part in _holders(config):
        entry = next((part[key] for key in _KEYS if part.get(key) is not None), entry)
    if entry is None:
        return None
    where = f"{root / 'config.json'}: quantization_config"
    if not isinstance(entry, dict):
        raise CheckpointError("must be an object", where=where, hint="Download the model again.")
    method = entry.get("quant_method")
    if method is None and any("load_in_" in key and entry[key] for key in entry):
        method = "bitsandbytes"
    if method is None:
        return Quantisation(None, entry)
    method = str(method).lower().removeprefix("intel/")
    if method not in DECODED and method not in CONVERTERS:
        hint = did_you_mean(method, [*DECODED, *CONVERTERS])
        raise CheckpointError(f"unknown quantisation method {entry['quant_method']!r}", where=where, hint=hint)
    if entry.get("transform_config"):
        what = "the weights were rotated before they were quantised, which is not undone here"
        raise CheckpointError(what, where=where, hint=_hint(_AGAIN))
    return Quantisation(method, entry)


_KEYS = ("quantization_config", "compression_config")


def _holders(config: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    text = (config or {}).get("text_config")
    return [config or {}, *([text] if isinstance(text, dict) else [])]


def plain_config(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The config of the same model with plain weights."""
    if config is None:
        return None
    plain = {key: value for key, value in config.items() if key not in _KEYS}
    text = plain.get("text_config")
    if isinstance(text, dict):
        plain["text_config"] = {key: value for key, value in text.items() if key not in _KEYS}
    for part in (plain, plain.get("text_config")):
        for key in ("dtype", "torch_dtype"):
            if isinstance(part, dict) and str(part.get(key)).startswith("float8"):
                part[key] = "bfloat16"
    return plain


def refuse_foreign(names: Iterable[str], quantisation: Quantisation | None, root: Path) -> None:
    """CheckpointError if tensor names show a way of quantising that is not decoded here."""
    for name in first_of_each_ending(names):
        for pattern, method, called in _SIGNS:
            if pattern.search(name):
                if quantisation is not None and quantisation.method in CONVERTERS:
                    raise foreign(quantisation.method, root)
                raise foreign(method, root, f"{called} (tensor {name!r})")


def first_of_each_ending(names: Iterable[str]) -> list[str]:
    """The first name of each last part, and of each whose names hold ``quant_state``: names are many, endings few."""
    found: dict[tuple[str, str, bool], str] = {}
    for name in names:
        _, dot, last = name.rpartition(".")
        found.setdefault((dot, last, ".quant_state." in name), name)
    return list(found.values())


def foreign(method: str, root: Path, called: str | None = None) -> CheckpointError:
    """The error for weights that only another program can turn into plain ones."""
    what = f"holds {called or _CALLED.get(method) or f'{method} weights'}, which are not decoded here"
    return CheckpointError(what, where=str(root), hint=_hint(CONVERTERS.get(method, _AGAIN)))


def _hint(converter: str) -> str:
    return f"Turn them into bfloat16 first with {converter}, or merge the models they were made from."
