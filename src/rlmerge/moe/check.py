"""Whether dense models can be the base and the experts of one mixture."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlmerge.checkpoint import Checkpoint, Source
from rlmerge.checkpoint.compare_config import compare_configs
from rlmerge.checkpoint.tables import embedding_rows
from rlmerge.checkpoint.token_table import shown
from rlmerge.checkpoint.tokenizer import Tokenizer, TokenizerReader
from rlmerge.errors import CheckpointError, nearest
from rlmerge.kernels.dtypes import MERGEABLE

from .targets import PROJECTIONS, Dense, Target, layer_tensors

EMBEDDING = "model.embed_tokens.weight"
_HEAD = "lm_head.weight"
_CONSTANT = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")
"""What old checkpoints store and no model reads."""

_SHAPE_HINT = "Experts are fine-tuned copies of one dense model."


def read_dense(base: Checkpoint) -> Dense:
    """The sizes that config.json and the first MLP of a dense model state; CheckpointError where they do not."""
    config = base.config or {}
    kind, layers, hidden = (config.get(key) for key in ("model_type", "num_hidden_layers", "hidden_size"))
    if not isinstance(kind, str) or not _is_size(layers, len(base.tensors)) or not _is_size(hidden):
        what = "config.json states no model_type, num_hidden_layers and hidden_size that fit its tensors"
        raise CheckpointError(what, where=base.reference, hint="Give the directory of a dense language model.")
    gate = base.tensors.get(mlp_name(0, "gate_proj"))
    width = gate.shape[0] if gate is not None and len(gate.shape) == 2 else 0
    return Dense(kind, int(layers or 0), int(hidden or 0), width)


def mlp_name(layer: int, projection: str) -> str:
    """Where a dense model stores a matrix of an MLP."""
    return f"model.layers.{layer}.mlp.{projection}.weight"


def base_tensors(base: Checkpoint, dense: Dense, target: Target) -> dict[str, Source]:
    """What the mixture takes from the base, in the order in which it is stored there: everything but its MLPs.

    CheckpointError if a tensor is missing, or the mixture has no place for one.
    """
    try:
        inside = layer_tensors(target, dense.kind, base.config or {})
    except CheckpointError as error:
        raise CheckpointError(error.what, where=base.reference, hint=error.hint) from None
    needed = {EMBEDDING, "model.norm.weight"}
    needed |= {f"model.layers.{layer}.{name}" for layer in range(dense.layers) for name in inside}
    if not base.tied_embeddings:
        needed.add(_HEAD)
    _check_there(base, needed)
    replaced = {mlp_name(layer, projection) for layer in range(dense.layers) for projection in PROJECTIONS}
    kept = {name: tensor for name, tensor in base.tensors.items() if name not in replaced}
    kept = {name: tensor for name, tensor in kept.items() if not _CONSTANT.fullmatch(name)}
    strange = [name for name in kept if name not in needed and name != _HEAD]
    if strange:
        what = f"has tensor '{strange[0]}' ({len(strange)} in all), for which {target.class_name} has no place"
        raise CheckpointError(what, where=base.reference, hint=_SHAPE_HINT)
    return kept


def check_mlps(model: Checkpoint, dense: Dense) -> None:
    """CheckpointError unless a model has the MLPs that ``dense`` says, in float types."""
    shapes = dict.fromkeys(PROJECTIONS, (dense.mlp, dense.hidden)) | {"down_proj": (dense.hidden, dense.mlp)}
    _check_there(model, {mlp_name(layer, name) for layer in range(dense.layers) for name in PROJECTIONS})
    more = mlp_name(dense.layers, "gate_proj")
    if more in model.tensors:
        what = f"has more than the {dense.layers} layers of the base"
        raise CheckpointError(what, where=model.reference, hint=_SHAPE_HINT)
    for layer in range(dense.layers):
        for name, shape in shapes.items():
            tensor = model.tensors[mlp_name(layer, name)]
            if tensor.shape != shape:
                what = f"{tensor.name} has shape {list(tensor.shape)}, and the base's {list(shape)}"
                raise CheckpointError(what, where=model.reference, hint=_SHAPE_HINT)
            if tensor.dtype not in MERGEABLE:
                what = f"{tensor.name} holds {tensor.dtype.name}, which is no float type"
                raise CheckpointError(what, where=model.reference, hint="Give plain weights.")


def check_expert(base: Checkpoint, expert: Checkpoint, dense: Dense) -> list[str]:
    """Warnings about an expert that computes otherwise than the base; CheckpointError if it is of another
    architecture or shape.
    """
    kind = (expert.config or {}).get("model_type")
    if expert.config is not None and kind != dense.kind:
        what = f"is of type '{kind}', and the base of type '{dense.kind}'"
        raise CheckpointError(what, where=expert.reference, hint=_SHAPE_HINT)
    check_mlps(expert, dense)
    if expert.config is None or base.config is None:
        return []
    found = [x for x in compare_configs(base.config, expert.config) if x.kind == "computation"]
    named = ", ".join(map(str, found))
    return [f"config.json of {expert.reference} differs: {named}, the base's, in the mixture"] if found else []


def check_vocabularies(base: Checkpoint, experts: Sequence[Checkpoint]) -> list[str]:
    """Warnings about tokens that the base lacks; CheckpointError if an expert gives a token of the base another id.

    Without tokenizers the number of rows has to agree.
    """
    reader = TokenizerReader()
    ours = reader.read(base.side_root)
    warnings: list[str] = []
    for expert in experts:
        if expert.side_root == base.side_root:
            continue
        mine, theirs = _ids(ours), _ids(reader.read(expert.side_root))
        if not mine or not theirs:
            counts = [embedding_rows(model.tensors, model.config) for model in (base, expert)]
            if None not in counts and counts[0] != counts[1]:
                what = f"has {counts[1]} rows of embeddings, and the base {counts[0]}"
                raise CheckpointError(what, where=expert.reference, hint=_SHAPE_HINT)
            continue
        moved = next((token for token, index in mine.items() if theirs.get(token, index) != index), None)
        if moved is not None:
            what = f"gives the token {shown(moved)} the id {theirs[moved]}, and the base {mine[moved]}"
            raise CheckpointError(what, where=expert.reference, hint="Its vocabulary is another; use a related model.")
        unknown = [token for token in theirs if token not in mine]
        if len(unknown) == len(theirs):
            what = "has no token of the base"
            raise CheckpointError(what, where=expert.reference, hint="Its vocabulary is another; use a related model.")
        if unknown:
            lost = f"{len(unknown)} tokens of {expert.reference} are not in the mixture, such as {shown(unknown[0])}"
            warnings.append(f"{lost}; it has the base's vocabulary")
    return warnings


def _ids(tokenizer: Tokenizer | None) -> dict[str, int]:
    return dict(tokenizer.table.ids) if tokenizer is not None and tokenizer.table is not None else {}


def _check_there(model: Checkpoint, needed: set[str]) -> None:
    missing = sorted(needed - set(model.tensors))
    if not missing:
        return
    close = nearest(missing[0], list(model.tensors)[:1000])
    hint = f"The nearest tensor is '{close}'. " if close else ""
    what = f"tensor '{missing[0]}' is missing ({len(missing)} in all)"
    raise CheckpointError(what, where=model.reference, hint=hint + _SHAPE_HINT)


def _is_size(value: object, most: int = 10**7) -> bool:
    return type(value) is int and 0 < value <= most
