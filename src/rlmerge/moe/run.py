"""Plans and writes a mixture of experts."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rlmerge._version import __version__
from rlmerge.checkpoint import ArraySource, Checkpoint, Source
from rlmerge.checkpoint.compose import joined
from rlmerge.checkpoint.config import with_dtype
from rlmerge.checkpoint.identity import plan_identity
from rlmerge.checkpoint.license import read_license, strictest
from rlmerge.errors import CheckpointError, RequestError
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import BY_NAME, FLOAT32, MERGEABLE, DType
from rlmerge.merging.composed import write_composed
from rlmerge.merging.place import check_place
from rlmerge.progress import Progress, Quiet
from rlmerge.text import prose

from .check import base_tensors, check_expert, check_mlps, check_vocabularies, mlp_name, read_dense
from .config import FROM_PROMPTS, Expert, MoeConfig, read_config
from .gates import States, embedding_states, prompt_rows, random_rows
from .noise import Adjusted, adjusted, wide
from .opening import open_all
from .targets import PROJECTIONS, Dense, Target, choose_target, expert_name, mixture_config


@frozen
class Mixture:
    """What was written: ``experts`` of which every token takes ``experts_per_token``, and ``shared`` ones."""

    out: str
    base: str
    architecture: str
    gate_mode: str
    experts: tuple[str, ...]
    shared: tuple[str, ...]
    experts_per_token: int
    bytes_written: int
    seconds: float
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return asdict(self)


@frozen
class _Parts:
    """What the tensors of a mixture are made of: one checkpoint for each expert, and routers [layers, rows, hidden]."""

    target: Target
    dense: Dense
    base: Checkpoint
    experts: Sequence[tuple[Expert, Checkpoint]]
    shared: Sequence[tuple[Expert, Checkpoint]]
    router: np.ndarray
    shared_gate: np.ndarray
    seed: int


def assemble_moe(
    config: str | os.PathLike[str] | Mapping[str, Any],
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    device: str = "auto",
    shard_size: int = 5 * 10**9,
    force: bool = False,
    trust_code: bool = False,
    progress: Progress | None = None,
) -> Mixture:
    """Write to ``out`` the mixture of experts that ``config`` (a path, YAML text or mapping) describes.

    The base gives embeddings, attention and norms, each expert its MLPs, prompts or random numbers the routers. Weights
    are read and written in tiles; only ``gate_mode: hidden`` loads a model, the base, on the torch ``device``.
    RequestError and its kin, with nothing written, for a configuration or models that make no mixture.
    """
    began, progress = time.perf_counter(), progress or Quiet()
    asked = read_config(config)
    opened = open_all(asked)
    base = opened[asked.base.identity]
    experts = [(expert, opened[expert.model.identity]) for expert in asked.experts]
    shared = [(expert, opened[expert.model.identity]) for expert in asked.shared]
    dense = read_dense(base)
    target = choose_target(asked.architecture, dense.kind, len(shared), base.reference)
    target.check_counts(len(experts), len(shared), asked.where)
    kept = base_tensors(base, dense, target)
    check_mlps(base, dense)
    others = [model for model in dict.fromkeys(model for _, model in (*experts, *shared)) if model is not base]
    warnings = [*asked.warnings]
    for model in others:
        warnings += check_expert(base, model, dense)
    warnings += check_vocabularies(base, others)
    warnings += _rounded(base, others, asked.dtype)
    identity = plan_identity(base, [], trust_code=trust_code)
    described = _described(base, identity.config or {}, target, dense, asked)
    check_place(Path(out), [base, *others], force)
    router, shared_gate = _router(asked, base, dense, target, seed, device, progress)
    parts = _Parts(target, dense, base, experts, shared, router, shared_gate, seed)
    mixed = {name: tensor for layer in range(dense.layers) for name, tensor in _layer(parts, layer).items()}
    tensors = {**kept, **mixed}
    files = dict(identity.with_config(described))
    files["README.md"] = _card(base, [model for _, model in (*experts, *shared)], target, asked)
    written = write_composed(
        tensors,
        files,
        Path(out),
        f"moe {__version__}",
        dtypes=_dtypes(tensors, parts, asked.dtype),
        shard_size=shard_size,
        force=force,
        progress=progress,
    )
    return Mixture(
        str(out),
        base.reference,
        target.class_name,
        asked.gate,
        tuple(model.reference for _, model in experts),
        tuple(model.reference for _, model in shared),
        asked.experts_per_token,
        written,
        time.perf_counter() - began,
        tuple(dict.fromkeys((*warnings, *identity.warnings))),
        identity.notes,
    )


def _described(
    base: Checkpoint, config: Mapping[str, Any], target: Target, dense: Dense, asked: MoeConfig
) -> dict[str, Any]:
    counts = len(asked.experts), len(asked.shared), asked.experts_per_token
    try:
        described = mixture_config(target, config, dense, *counts)
    except CheckpointError as error:
        raise CheckpointError(error.what, where=base.reference, hint=error.hint) from None
    return described if asked.dtype is None else with_dtype(described, asked.dtype)


def _router(
    asked: MoeConfig, base: Checkpoint, dense: Dense, target: Target, seed: int, device: str, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Rows [layers, experts, hidden] of the routers, and [layers, shared, hidden] of what weighs shared experts.

    A shared expert without prompts has rows of zeros, which weigh it by half.
    """
    weighed = asked.shared if target.shared_gate else ()
    zeros = np.zeros((dense.layers, len(weighed), dense.hidden), np.float32)
    if asked.gate not in FROM_PROMPTS:
        return random_rows(asked.gate, dense.layers, len(asked.experts), dense.hidden, seed), zeros
    states = embedding_states(base, dense.layers) if asked.gate == "cheap_embed" else _hidden(base, device, progress)
    chosen = [*asked.experts, *(expert for expert in weighed if expert.positive)]
    rows = prompt_rows(chosen, states)
    found = rows[:, : len(asked.experts)], rows[:, len(asked.experts) :]
    return found if found[1].shape[1] else (found[0], zeros)


def _hidden(base: Checkpoint, device: str, progress: Progress) -> States:
    """What ``hidden`` knows of prompts: states inside the base, as transformers runs it."""
    if base.format != "safetensors":
        what = f"is {base.format}, which transformers does not run as it is"
        hint = "Write it as a plain model first with `rlmerge convert`, or use `gate_mode: cheap_embed`."
        raise RequestError(what, where=base.reference, hint=hint)

    def states(prompts: Sequence[str]) -> np.ndarray:
        from rlmerge.language.states import mean_states

        progress.start("run prompts", len(prompts), "prompts")
        found = mean_states(base.path, prompts, device=device, advance=progress.advance)
        progress.done()
        return found

    return states


def _layer(parts: _Parts, layer: int) -> dict[str, Source]:
    """The mixture that takes the place of a layer's MLP."""
    target, found = parts.target, dict[str, Source]()
    place = f"model.layers.{layer}"

    def array(name: str, values: np.ndarray) -> None:
        found[name] = ArraySource(name, FLOAT32, np.ascontiguousarray(values, np.float32), "router")

    array(f"{place}.{target.block}.gate.weight", parts.router[layer])
    if target.bias is not None:
        array(f"{place}.{target.bias}", np.zeros(len(parts.experts)))
    for index, each in enumerate(parts.experts):
        for projection in PROJECTIONS:
            name = expert_name(target, layer, index, projection)
            found[name] = _matrix(parts, each, layer, projection, name)
    if not parts.shared:
        return found
    for projection in PROJECTIONS:
        name = f"{place}.{target.shared_prefix}.{projection}.weight"
        # Beside one another, shared experts are one MLP that is as much wider.
        one = [_matrix(parts, each, layer, projection, f"{name} {index}") for index, each in enumerate(parts.shared)]
        common = wide(one)
        one = [x if x.dtype is common else Adjusted(x, x.name, 1.0, 0.0, (), common) for x in one]
        found[name] = joined(name, one, axis=1 if projection == "down_proj" else 0)
    if target.shared_gate is not None:
        array(f"{place}.{target.shared_gate}", parts.shared_gate[layer])
    return found


def _matrix(parts: _Parts, each: tuple[Expert, Checkpoint], layer: int, projection: str, name: str) -> Source:
    expert, model = each
    scale = expert.residual_scale if projection == "down_proj" else 1.0
    source = model.tensors[mlp_name(layer, projection)]
    return adjusted(source, name, scale, expert.noise_scale, (parts.seed, "noise", name))


def _dtypes(tensors: Mapping[str, Source], parts: _Parts, wanted: str | None) -> dict[str, DType]:
    """Types to store tensors in: ``wanted``, else those of the base's own MLPs for all of the mixture.

    A score that chooses experts stays float32, as the architecture has it.
    """
    found: dict[str, DType] = {}
    default = parts.base.tensors[mlp_name(0, "gate_proj")].nominal
    for name, tensor in tensors.items():
        if parts.target.bias is not None and name.endswith(parts.target.bias):
            found[name] = FLOAT32
        elif wanted is not None and tensor.dtype in MERGEABLE:
            found[name] = BY_NAME[wanted]
        else:
            found[name] = default if name not in parts.base.tensors else tensor.nominal
    return found


def _rounded(base: Checkpoint, others: Sequence[Checkpoint], wanted: str | None) -> list[str]:
    """Warnings about experts that lose digits because the base, and so the mixture, is stored in fewer."""
    name = mlp_name(0, "gate_proj")
    ours = base.tensors[name].nominal
    if wanted is not None:
        return []
    return [
        f"weights of {model.reference} are {model.tensors[name].nominal.name} and become {ours.name}, as the base's "
        "are; `dtype` decides otherwise"
        for model in others
        if model.tensors[name].nominal.itemsize > ours.itemsize
    ]


def _card(base: Checkpoint, experts: Sequence[Checkpoint], target: Target, asked: MoeConfig) -> bytes:
    """README.md of the output."""
    models = list(dict.fromkeys([base, *experts]))
    names = [each.reference if each.revision else each.path.name for each in models]
    matter: dict[str, Any] = {"base_model": names, "library_name": "transformers", "tags": ["rlmerge", "moe"]}
    license = strictest(read_license(model.side_root) for model in models)
    if license is not None:
        matter["license"] = license
    routers = {
        "hidden": "mean hidden states of prompts",
        "cheap_embed": "mean embeddings of prompts",
        "random": "normal random numbers",
        "uniform_random": "uniform random numbers",
    }
    shared = f" and {len(asked.shared)} shared" if asked.shared else ""
    parts = [
        f"---\n{yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)}---",
        f"# A mixture of {len(asked.experts)} experts on {prose(names[0])}",
        f"Made with rlmerge {__version__} as {target.class_name}: attention, norms and embeddings of "
        f"{prose(names[0])}, and "
        f"the MLPs of {len(asked.experts)}{shared} dense models. A token takes {asked.experts_per_token}; the "
        f"routers are {routers[asked.gate]}. It was not trained as a mixture.",
        "`rlmerge verify` checks this directory against `MANIFEST.json`.",
    ]
    return ("\n\n".join(parts) + "\n").encode()
