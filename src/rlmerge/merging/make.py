"""Makes a plan from a recipe: opens the models, matches their tensors, and checks every value beforehand."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from rlmerge.checkpoint import Checkpoint, InputFile, Source, plan_shards
from rlmerge.checkpoint.config import read_config, with_dtype, with_quantization, with_tied, without_drafts
from rlmerge.checkpoint.formats import ADAPTER
from rlmerge.checkpoint.identity import CONFIG, Identity, plan_identity
from rlmerge.checkpoint.license import read_license
from rlmerge.checkpoint.module_kinds import ROUTER, kind_of
from rlmerge.checkpoint.reindex import reindexed
from rlmerge.checkpoint.side_files import open_side_file
from rlmerge.checkpoint.vocabulary import ModelToken, TokenizerSpec, TokenSpec
from rlmerge.errors import RequestError
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import BY_NAME, FLOAT32, FLOAT64, MERGEABLE, DType
from rlmerge.kernels.rounding import STOCHASTIC
from rlmerge.options import Options
from rlmerge.recipe import LIKE_BASE, ModelRef, Recipe, Zero, canonical_dtype
from rlmerge.recipe import ModelToken as TokenOfModel
from rlmerge.recipe import TokenizerSpec as AskedTokenizer

from .as_adapter import LINEAR
from .heads import settle_heads
from .job import Job
from .jobs import JobMaker, Jobs, Wish
from .locked import check_files, check_locked
from .matching import see
from .measured import Inputs, open_inputs, require_inputs
from .memory import uncollected
from .opening import Models, models_of, open_models
from .place import check_place, check_space, held_here
from .plan import Beside, Plan, is_like_base

if TYPE_CHECKING:
    from rlmerge.checkpoint.formats.quantised_encode import Encoder

View = Callable[[Checkpoint], Mapping[str, Source]]


@frozen
class Opened:
    """The models of a recipe, and what goes beside the weights: enough to plan any recipe of the same models.

    ``further`` are the further inputs of recipes planned so far, so that plans share their sources.
    """

    models: Models
    identity: Identity
    further: dict[Hashable, Inputs] = field(default_factory=dict[Hashable, Inputs])

    def plan(self, recipe: Recipe, out: Path | None, options: Options) -> Plan:
        """The plan of a recipe that names these models; errors as for ``make_plan``."""
        with uncollected():
            models = models_of(recipe, self.models.opened)
            return _plan(models, out, options, self._inputs(models), self.identity)

    def _inputs(self, models: Models) -> Inputs:
        recipe = models.recipe
        if not recipe.is_whole or not recipe.inputs:
            return {}
        key = tuple(recipe.inputs.items()), tuple(recipe.static().items())
        if key not in self.further:
            self.further[key] = open_inputs(recipe, models.base, models.experts)
        return self.further[key]


@uncollected()
def make_plan(
    recipe: Recipe, out: Path | None, options: Options, stages: Mapping[str, Checkpoint] | None = None
) -> Plan:
    """Open the recipe's models and plan their merge; nothing is written and no weight is merged.

    ``stages`` are results of recipes before it, by name. CheckpointError if a model cannot be used; RecipeError with
    every mismatch between models and every value a method refuses; RequestError if the output may not be created or
    would not fit on the disk, or the budget is too small.
    """
    opened = open_recipe(recipe, options, stages, out)
    return opened.plan(recipe, out, options)


@uncollected()
def open_recipe(
    recipe: Recipe, options: Options, stages: Mapping[str, Checkpoint] | None = None, out: Path | None = None
) -> Opened:
    """Open the recipe's models, for its plan and for those of other recipes of them; errors as for ``make_plan``."""
    models = open_models(recipe, stages)
    if out is not None:
        check_place(out, models.opened.values(), options.force)
    recipe = models.recipe
    further: dict[Hashable, Inputs] = {}
    inputs = open_inputs(recipe, models.base, models.experts) if recipe.is_whole else {}
    if inputs:
        further[tuple(recipe.inputs.items()), tuple(recipe.static().items())] = inputs
    fixed = {name: [(x.directory, x.fingerprint) for x in found] for name, found in inputs.items()}
    check_locked(recipe, [models.of(model) for model in recipe.models if not model.stage], fixed)
    identity = plan_identity(
        models.base,
        list(dict.fromkeys(models.experts)) or list(models.opened.values())[1:],
        tokenizer=_tokenizer(recipe.tokenizer, models),
        chat_template=_template(recipe, models),
        trust_code=options.trust_code,
        compat=recipe.compat,
    )
    return Opened(models, identity, further)


def plan_models(
    recipe: Recipe,
    base: Checkpoint | None,
    experts: tuple[Checkpoint, ...],
    options: Options,
    inputs: Inputs = MappingProxyType({}),
) -> Plan:
    """The plan of a merge in memory, of models that are already open and have nothing beside their weights."""
    if is_like_base(options, recipe):
        what = f"{LIKE_BASE} is for files: state dicts hold no quantised weights"
        raise RequestError(what, hint="Name a type, or merge model directories with rlmerge.merge.")
    named = [*([recipe.base] if recipe.base else []), *(expert.model for expert in recipe.experts)]
    models = [*([base] if base else []), *experts]
    opened = {model.identity: checkpoint for model, checkpoint in zip(named, models, strict=True)}
    return _plan(Models(recipe, base, experts, opened), None, options, inputs, None)


def _plan(models: Models, out: Path | None, options: Options, inputs: Inputs, identity: Identity | None) -> Plan:
    recipe = models.recipe
    if recipe.is_whole:
        require_inputs(recipe, inputs)
    template = models.base or models.experts[0]
    view: View = identity.tensors if identity else lambda model: model.tensors
    warnings = [*recipe.warnings, *(w for model in dict.fromkeys(models.opened.values()) for w in model.warnings)]
    distinct = list(dict.fromkeys([template, *models.opened.values()]))
    merged = [m for m in distinct if m is template or m in models.experts or m in _bases(models)]
    seen = see(merged, view, warnings)
    untied = settle_heads(merged, seen, warnings)
    dtype, out_dtype = options.dtype or recipe.dtype, options.out_dtype or recipe.out_dtype
    encoders: Mapping[str, Encoder] | None = None
    if is_like_base(options, recipe):
        from .like_base import encoders as encoders_of

        out_dtype, encoders = None, encoders_of(recipe, models.base, seen[0])
    named = _named(dtype, "--dtype")
    asked = Wish(named, _named(out_dtype, "--out-dtype"), named is FLOAT64, encoders)
    maker = JobMaker(models, {id(m): tensors for m, tensors in zip(merged, seen, strict=True)}, inputs, asked)
    made = maker.make()
    if options.rounding == "stochastic":
        _check_stochastic(made, encoders is not None)
    maker.check()
    jobs = made.jobs
    groups = [job.output if job.encoder is None else job.outputs for job in jobs.values()]
    shards = plan_shards(groups, options.shard_size)
    writing = {output.name: job for job in jobs.values() for output in job.outputs}
    ordered = {job.name: job for shard in shards for o in shard.tensors for job in [writing[o.name]]}
    warnings += [*made.warnings, *(identity.warnings if identity else ()), *_unused(recipe, ordered)]
    warnings += _rounded_adapters(models, ordered.values())
    files = _files(identity, made, untied, models, encoders is not None) if identity else {}
    licenses = [read_license(model.side_root) for model in dict.fromkeys(models.opened.values())] if identity else []
    beside = Beside(files, tuple(identity.notes) if identity else (), tuple(licenses))
    plan = Plan(
        recipe=recipe,
        options=options,
        base=models.base,
        experts=models.experts,
        opened=models.opened,
        inputs=inputs,
        template=template,
        jobs=ordered,
        shards=shards,
        out=out,
        warnings=tuple(dict.fromkeys(warnings)),
        beside=beside,
    )
    _check_scope(plan)
    check_files(plan)
    _ = plan.sizing
    if out is not None:
        check_space(out, held_here(out, plan.shards))
    return plan


def _bases(models: Models) -> list[Checkpoint]:
    return [models.of(part.base) for _, part in models.recipe.slices if part.base]


def _tokenizer(asked: AskedTokenizer | None, models: Models) -> TokenizerSpec | None:
    """The vocabulary a recipe asks for, with checkpoints for the models it names."""
    if asked is None:
        return None

    def of(source: ModelRef | Zero | TokenOfModel | None) -> Any:
        if isinstance(source, Zero):
            return "zero"
        if isinstance(source, ModelRef):
            return ModelToken(models.of(source))
        return None if source is None else ModelToken(models.of(source.model), source.token, source.token_id)

    source = models.of(asked.source) if isinstance(asked.source, ModelRef) else asked.source
    tokens = {token: TokenSpec(of(spec.source), spec.force) for token, spec in asked.tokens.items()}
    return TokenizerSpec(source, tokens, asked.pad_to_multiple_of)


def _template(recipe: Recipe, models: Models) -> Checkpoint | str | None:
    template = recipe.chat_template
    if template is None:
        return None
    return models.of(template.model) if template.model else template.text


def _files(
    identity: Identity, made: Jobs, untied: bool, models: Models, like_base: bool
) -> Mapping[str, InputFile | bytes]:
    """Every file beside the weights, the configuration adapted to what is written."""
    config = identity.config
    if config is None:
        return identity.files
    config = dict(config)
    if untied:
        config = with_tied(config, False)
    for tower, layers in made.layers.items():
        donor = next(models.of(model) for _, part in models.recipe.slices for model in part.models)
        config = reindexed({**(donor.config or {}), **config}, layers, tower)
    if made.no_drafts:
        config = without_drafts(config)
    if like_base and models.base is not None:
        original = read_config(models.base.side_root) or {}
        config = with_quantization(config, original)
        if config == original:
            return {**identity.files, CONFIG: open_side_file(models.base.side_root / CONFIG)}
        return identity.with_config(config)
    written = {job.output.dtype.name for job in made.jobs.values() if job.output.dtype in MERGEABLE}
    template = models.base or models.experts[0]
    stored = {source.nominal.name for source in template.tensors.values() if source.dtype in MERGEABLE}
    if len(written) == 1 and written != stored:
        config = with_dtype(config, *written)
    return identity.with_config(config)


def _named(name: str | None, where: str) -> DType | None:
    return None if name is None else BY_NAME[canonical_dtype(name, where)]


def _check_stochastic(made: Jobs, like_base: bool) -> None:
    if like_base:
        what = f"codes of {LIKE_BASE} are the nearest ones; stochastic rounding writes bfloat16 or float16"
        made.problems["stochastic"] = RequestError(what, hint="Leave --rounding or --out-dtype away.")
        return
    wrong = [j.output for j in made.jobs.values() if j.method is not None and j.output.dtype not in STOCHASTIC]
    if wrong:
        made.problems["stochastic"] = RequestError(
            f"stochastic rounding writes bfloat16 or float16, but '{wrong[0].name}' would be {wrong[0].dtype.name}",
            hint="Set --out-dtype bfloat16, or leave --rounding at nearest: float32 keeps every change anyway.",
        )


def _check_scope(plan: Plan) -> None:
    """RequestError when a threshold over the whole model would have to follow a value that varies within it."""
    scopes: dict[str, list[Any]] = {}
    for job in plan.merged:
        scopes.setdefault(job.scope, []).append(job)
    for jobs in scopes.values():
        names = {
            n for stage in jobs[0].stages for s in stage if s.over == "model" and s.reduce == "kth" for n in s.uses
        }
        for name in sorted(names):
            if any(not np.array_equal(job.values[name], jobs[0].values[name]) for job in jobs):
                raise RequestError(
                    f"'{name}' varies from tensor to tensor, but its threshold is taken over the whole model",
                    where=plan.recipe.origin or "recipe",
                    hint=f"Give '{name}' one value, or set scope: tensor.",
                )


def _rounded_adapters(models: Models, jobs: Iterable[Job]) -> list[str]:
    """Adapters move weights by less than a narrow type can hold, where an adapter could hold them all."""
    linear = models.recipe.is_whole and models.recipe.method.name in LINEAR
    if not linear or not all(expert.format == ADAPTER for expert in models.experts):
        return []
    narrow = sorted(
        {job.output.dtype.name for job in jobs if job.method and job.output.dtype.itemsize < FLOAT32.itemsize}
    )
    text = "takes back most of a small update, and the account says how much; --as adapter writes the merge exactly"
    return [f"rounding adapters to {name} {text}" for name in narrow]


def _unused(recipe: Recipe, tensors: Mapping[str, object]) -> Sequence[str]:
    return [
        f"the filter '{pattern}' matches no tensor"
        for pattern in recipe.unused_filters(tensors, any(kind_of(name) == ROUTER for name in tensors))
    ]
