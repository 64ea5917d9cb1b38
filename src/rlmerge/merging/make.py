"""Makes a plan from a recipe: opens the models, pairs their tensors, and checks every value before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from rlmerge.checkpoint import Checkpoint, OutputTensor, plan_shards
from rlmerge.errors import RecipeError, RequestError
from rlmerge.kernels.dtypes import BY_NAME, FLOAT64, MERGEABLE, DType
from rlmerge.kernels.rounding import STOCHASTIC
from rlmerge.options import Options
from rlmerge.recipe import Recipe, canonical_dtype, layer_count

from .job import Job
from .locked import check_locked
from .matching import open_models, pair_tensors
from .measured import Inputs, inputs_of, open_inputs, require_inputs
from .place import check_place, free_space
from .plan import Plan


def make_plan(recipe: Recipe, out: Path | None, options: Options) -> Plan:
    """Open the recipe's models and plan their merge; nothing is written and no weight is read.

    CheckpointError if a model cannot be used; RecipeError with every mismatch between models and every value a method
    refuses; RequestError if the output may not be created or would not fit on the disk, or the budget is too small.
    """
    base, experts = open_models(recipe)
    models = [*([base] if base else []), *experts]
    if out is not None:
        check_place(out, models, options.force)
    inputs = open_inputs(recipe, base, experts)
    further = {name: [(x.directory, x.fingerprint) for x in found] for name, found in inputs.items()}
    check_locked(recipe, models, further)
    return plan_models(recipe, base, experts, out, options, inputs)


def plan_models(
    recipe: Recipe,
    base: Checkpoint | None,
    experts: tuple[Checkpoint, ...],
    out: Path | None,
    options: Options,
    inputs: Inputs = MappingProxyType({}),
) -> Plan:
    """As ``make_plan``, of models and further inputs that are already open."""
    require_inputs(recipe, inputs)
    template = base or experts[0]
    pairs = pair_tensors(recipe, base, experts, options)
    layers = layer_count(template.tensors)
    dtype = _out_dtype(recipe, options)
    wide = _named(options.dtype or recipe.dtype, "--dtype") is FLOAT64
    problems: dict[str, RequestError] = {}
    jobs: dict[str, Job] = {}
    models = tuple(range(len(experts)))
    stages = recipe.method.statistics(len(experts), **recipe.static())
    for name, (base_source, sources) in pairs.matched.items():
        sample = base_source or sources[0]
        if sample.dtype not in MERGEABLE:
            jobs[name] = Job(OutputTensor(name, sample.dtype, sample.shape), None, base_source, sources, models)
            continue
        job = Job(
            OutputTensor(name, dtype or sample.dtype, sample.shape),
            recipe.method,
            base_source,
            sources,
            models,
            recipe.values(name, layers),
            stages,
            inputs_of(name, inputs),
            wide,
        )
        known = {"experts": float(len(experts)), "numel": sample.numel, "wide": job.operands.real == np.float64}
        job = replace(job, values={**job.values, **known})
        for problem in recipe.method.check(job.values):
            problems.setdefault(problem, RequestError(problem, where=f"{recipe.origin or 'recipe'}: {name}"))
        jobs[name] = job
    if options.rounding == "stochastic":
        _check_stochastic(jobs, problems)
    if problems:
        raise RecipeError(problems.values())
    shards = plan_shards([job.output for job in jobs.values()], options.shard_size)
    ordered = {o.name: jobs[o.name] for shard in shards for o in shard.tensors}
    warnings = (*recipe.warnings, *pairs.warnings, *_unused(recipe, ordered))
    plan = Plan(recipe, options, base, experts, inputs, template, ordered, shards, out, warnings)
    _check_scope(plan)
    _ = plan.sizing
    if out is not None:
        _check_disk(plan, out)
    return plan


def _named(name: str | None, where: str) -> DType | None:
    return None if name is None else BY_NAME[canonical_dtype(name, where)]


def _out_dtype(recipe: Recipe, options: Options) -> DType | None:
    """What merged tensors are stored in; None: each as in the base."""
    if options.out_dtype or recipe.out_dtype:
        return _named(options.out_dtype or recipe.out_dtype, "--out-dtype")
    return _named(options.dtype or recipe.dtype, "--dtype")


def _check_stochastic(jobs: Mapping[str, Job], problems: dict[str, RequestError]) -> None:
    wrong = [job.output for job in jobs.values() if job.method is not None and job.output.dtype not in STOCHASTIC]
    if wrong:
        problems["stochastic"] = RequestError(
            f"stochastic rounding writes bfloat16 or float16, but '{wrong[0].name}' would be {wrong[0].dtype.name}",
            hint="Set --out-dtype bfloat16, or leave --rounding at nearest: float32 keeps every change anyway.",
        )


def _check_scope(plan: Plan) -> None:
    """RequestError when a threshold over the whole model would have to follow a value that varies within it."""
    merged = plan.merged
    stages = merged[0].stages if merged else ()
    names = {name for stage in stages for s in stage if s.over == "model" and s.reduce == "kth" for name in s.uses}
    for name in sorted(names):
        if any(not np.array_equal(t.values[name], merged[0].values[name]) for t in merged):
            raise RequestError(
                f"'{name}' varies from tensor to tensor, but its threshold is taken over the whole model",
                where=plan.recipe.origin or "recipe",
                hint=f"Give '{name}' one value, or set scope: tensor.",
            )


def _unused(recipe: Recipe, jobs: Mapping[str, Job]) -> tuple[str, ...]:
    return tuple(f"the filter '{pattern}' matches no tensor" for pattern in recipe.unused_filters(jobs))


def _check_disk(plan: Plan, out: Path) -> None:
    free = free_space(out)
    if free < plan.bytes_written:
        raise RequestError(
            f"the merge writes {plan.bytes_written:,} bytes, but only {free:,} are free there",
            where=str(out),
            hint="Free some space, or write to another disk with -o.",
        )
