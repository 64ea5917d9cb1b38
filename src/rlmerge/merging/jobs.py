"""From matched models to jobs: modules, slices and layers of a recipe, with the values of every tensor."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from rlmerge.checkpoint import Checkpoint, OutputTensor, Source
from rlmerge.checkpoint.module_kinds import kind_of
from rlmerge.errors import RecipeError, RequestError
from rlmerge.kernels.dtypes import FLOAT32, FLOAT64, MERGEABLE
from rlmerge.methods.method import Stages
from rlmerge.recipe import Module, Recipe, Slice

from .job import Job
from .job_values import Values
from .matching import is_derived, pair_tensors, shortened, some
from .measured import Inputs, inputs_of
from .modules import module_prefix
from .opening import Models
from .output_types import OutputTypes, Wish
from .stacking import misfits, other_kinds
from .towers import heads, is_draft, parts_of_layers, tower_depths, tower_of

if TYPE_CHECKING:
    from rlmerge.checkpoint.formats.quantised_encode import Encoder

_BEFORE = re.compile(r"embed|wte|wpe|word_emb|position|tok_emb|patch|conv1|cls_token|rotary")
"""Names of what a model does before its layers; the rest outside them comes after."""


@dataclass
class Jobs:
    """Jobs by output name, warnings, the problems found, and the layers of each tower where slices chose them.

    ``layers`` maps a tower to the first source's layer for each output layer. ``no_drafts`` says that the layers for
    multi-token prediction were left out.
    """

    jobs: dict[str, Job] = field(default_factory=dict[str, Job])
    warnings: list[str] = field(default_factory=list[str])
    problems: dict[str, RequestError] = field(default_factory=dict[str, RequestError])
    layers: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    no_drafts: bool = False


class JobMaker:
    """Makes the jobs of one recipe; ``seen`` are each model's tensors under the first model's names."""

    def __init__(self, models: Models, seen: Mapping[int, Mapping[str, Source]], inputs: Inputs, wish: Wish) -> None:
        self.models = models
        self.recipe: Recipe = models.recipe
        self.seen = seen
        self.inputs = inputs
        self.wish = wish
        self.made = Jobs()
        first = models.base or models.experts[0]
        self.names = list(dict.fromkeys(chain.from_iterable(seen[id(model)] for model in self._models())))
        self.depths = tower_depths(seen[id(first)], first.config)
        self.types = OutputTypes(wish, first)
        self.values = Values(self.recipe, self.depths, self._refuse)
        self.remarks: dict[tuple[str, str], list[str]] = {}

    def _models(self) -> Iterable[Checkpoint]:
        return (*([self.models.base] if self.models.base else []), *self.models.experts)

    def make(self) -> Jobs:
        """All jobs. RecipeError with everything that is wrong with the slices."""
        for number, (module, names) in enumerate(self._partition()):
            if module is None:
                self._copy(names)
            elif module.is_whole or self._takes_all(module):
                self._whole(module, names, str(number) if number else "")
            else:
                self._sliced(module, names, str(number))
        if self.types.kept_wide:
            self.made.warnings.append(
                f"{some(self.types.kept_wide)} stay float32, as in every model; name out_dtype to narrow them"
            )
        for (before, after), names in self.remarks.items():
            self.made.warnings.append(f"{before}{some(list(dict.fromkeys(names)))}{after}")
        return self.made

    def _takes_all(self, module: Module) -> bool:
        """Whether a range from 0 ends where the models do."""
        return self.recipe.is_whole and module.slices[0].length == max(self.depths.values(), default=0)

    # Modules

    def _partition(self) -> list[tuple[Module | None, list[str]]]:
        """Modules with the tensors they speak of; last, what none speaks of, which is copied from the base."""
        modules = self.recipe.modules
        if len(modules) == 1 and modules[0].name is None:
            return [(modules[0], self.names)]
        towers = list(dict.fromkeys(found[0] for name in self.names if (found := tower_of(name))))
        prefixes: dict[str, Module] = {}
        for module in modules:
            prefix = module_prefix(module.name or "", self.names, towers)
            problem, hint = None, "Give a part of the model one module."
            if prefix is None:
                known = dict.fromkeys([*(t.rpartition(".")[0] or t for t in towers), *heads(self.names)])
                problem, hint = f"the models have no module '{module.name}'", f"Modules: {', '.join(known)}."
            elif prefix in prefixes:
                shown = f"'{prefix}'" if prefix else "the rest of the model"
                problem = f"'{prefixes[prefix].name}' and '{module.name}' both mean {shown}"
            else:
                prefixes[prefix] = module
            if problem is not None:
                self.made.problems[problem] = RequestError(problem, where=self._at(module.line), hint=hint)
        self.check()
        parts: dict[str | None, list[str]] = {prefix: [] for prefix in prefixes}
        for name in self.names:
            holding = [prefix for prefix in prefixes if prefix == "" or f"{name}.".startswith(f"{prefix}.")]
            parts.setdefault(max(holding, key=len) if holding else None, []).append(name)
        return [(None if prefix is None else prefixes[prefix], names) for prefix, names in parts.items()]

    def _copy(self, names: Sequence[str]) -> None:
        """Tensors of no module."""
        base = self.models.base
        if base is None:
            what = f"no module speaks of {some(names)}, and there is no base to copy them from"
            self.made.problems["left"] = RequestError(what, where=self._at(None), hint="Name a base_model.")
            return
        if not self._keeps_layers():
            self._lose([name for name in names if is_draft(name, self.depths)])
            names = [name for name in names if not is_draft(name, self.depths)]
        held = [name for name in names if name in self.seen[id(base)]]
        absent = [name for name in names if name not in self.seen[id(base)]]
        if absent:
            self.made.warnings.append(f"the experts hold {some(absent)} that {base.reference} lacks; left out")
        if not held:
            return
        self.made.warnings.append(f"no module speaks of {some(held)}; copied from {base.reference}")
        for name in held:
            self._add(name, self.seen[id(base)][name], (), (), None, None, "", 0.0, ())

    # Whole models

    def _whole(self, module: Module, names: Sequence[str], scope: str) -> None:
        part = module.slices[0]
        base = self.models.of(part.base) if part.base else self.models.base
        experts = [self.models.of(source.model) for source in part.sources]
        chosen = set(names)
        if not experts:
            for name in names:
                if base is not None and name in self.seen[id(base)]:
                    self._add(name, self.seen[id(base)][name], (), (), None, None, "", 0.0, ())
            return
        models = [*([base] if base else []), *experts]
        seen = [self.seen[id(m)] for m in models]
        if len(chosen) < len(self.names):
            seen = [{n: s for n, s in tensors.items() if n in chosen} for tensors in seen]
        promote = self.wish == Wish(None, None, False)
        pairs = pair_tensors(base, experts, seen, promote=promote)
        self.made.warnings += pairs.warnings
        numbers = self._numbers(part, experts)
        stages = self._stages(module, part)
        for name, (base_source, sources) in pairs.matched.items():
            if sources and base_source is None and len(sources) < len(experts):
                base_source, sources = sources[0], ()
            self._add(name, base_source, sources, numbers, module, part, scope, None, stages)

    def _numbers(self, part: Slice, experts: Sequence[Checkpoint]) -> tuple[int, ...]:
        """Which of the plan's experts each source is."""
        if self.recipe.is_whole:
            return tuple(range(len(experts)))
        return tuple(self.models.experts.index(expert) for expert in experts)

    def _stages(self, module: Module, part: Slice) -> Stages:
        return self.recipe.method_of(module).statistics(len(part.sources), **self.recipe.static(module, part))

    # Slices

    def _sliced(self, module: Module, names: Sequence[str], scope: str) -> None:
        drafts = [name for name in names if is_draft(name, self.depths)]
        names = [name for name in names if not is_draft(name, self.depths)]
        towers = list(dict.fromkeys(found[0] for name in names if (found := tower_of(name))))
        if len(towers) != 1:
            shown = ", ".join(f"'{tower}'" for tower in towers) or "none"
            what = f"slices need one tower of layers, and here are {len(towers)}: {shown}"
            hint = "Use `modules` and give each tower its own slices or models."
            self.made.problems[f"towers {scope}"] = RequestError(what, where=self._at(module.line), hint=hint)
            return
        (tower,) = towers
        chosen, done = set(names), 0
        layers: list[int] = []
        slices, inner = module.slices, scope
        self._check_fit(module, tower, chosen)
        for number, part in enumerate(slices):
            inner = f"{scope}.{number}"
            self._outside(module, part, chosen, inner, first=number == 0, last=number == len(slices) - 1)
            done += self._layers(module, part, tower, chosen, inner, done, layers)
        self.made.layers[tower] = layers
        if self._keeps_layers():
            last = slices[-1]
            for name in drafts:
                self._draft(module, last, name, inner)
        else:
            self._lose(drafts)

    def _draft(self, module: Module, part: Slice, name: str, scope: str) -> None:
        """Merge what predicts further tokens as it stands after the layers, if all models of the slice have it."""
        models = [self.models.of(model) for model in part.models]
        holders = [model for model in models if name in self.seen[id(model)]]
        if len(holders) == len(models) or (part.base and holders == models[:1]):
            self._slice_job(module, part, name, dict.fromkeys(range(len(models)), name), scope, 1.0)
        else:
            self._remark(name, "not every model of the last slice has ", ", so that is left out")
            self.made.no_drafts = True

    def _keeps_layers(self) -> bool:
        """Whether every layer is where it was."""
        return all(layers == list(range(self.depths[tower])) for tower, layers in self.made.layers.items())

    def _lose(self, drafts: Sequence[str]) -> None:
        """Leave out what predicts further tokens from layers that are no longer those it was trained on."""
        for name in drafts:
            after = ", as multi-token prediction fits the layers as they were; only speculative decoding needs it"
            self._remark(name, "left out: ", after)
            self.made.no_drafts = True

    def _check_fit(self, module: Module, tower: str, chosen: set[str]) -> None:
        """Note models of other shapes, layers of other kinds, and layers that no slice can speak of."""
        template = self.models.base or self.models.experts[0]
        models = [self.models.of(model) for part in module.slices for model in part.models]
        for problem in misfits(template, list(dict.fromkeys(models)), self.seen, chosen):
            self.made.problems.setdefault(f"width {problem.where}", problem)
        for part in module.slices:
            problem = other_kinds(template, tower, part, self._at(part.line))
            if problem is not None:
                self.made.problems.setdefault("kinds", problem)

    def _remark(self, name: str, before: str, after: str) -> None:
        """Add a tensor to those that one warning names between two texts."""
        self.remarks.setdefault((before, after), []).append(name)

    def _outside(self, module: Module, part: Slice, chosen: set[str], scope: str, *, first: bool, last: bool) -> None:
        """Tensors before the layers come of the first slice, those after them of the last."""
        if not first and not last:
            return
        models = [self.models.of(model) for model in part.models]
        held = dict.fromkeys(n for m in models for n in self.seen[id(m)] if n in chosen and tower_of(n) is None)
        for name in held:
            before = bool(_BEFORE.search(name))
            if (before and first) or (not before and last):
                self._slice_job(module, part, name, dict.fromkeys(range(len(models)), name), scope, 0.0)

    def _layers(
        self, module: Module, part: Slice, tower: str, chosen: set[str], scope: str, done: int, layers: list[int]
    ) -> int:
        """The layers of one slice; how many they are."""
        ranges = [*([part.base_range] if part.base else []), *(source.layer_range for source in part.sources)]
        models = [self.models.of(model) for model in part.models]
        length = part.length or 0
        for model, bounds in zip(models, ranges, strict=True):
            depth = tower_depths(self.seen[id(model)], model.config).get(tower, 0)
            if bounds is not None and bounds[1] > depth:
                what = f"layer_range [{bounds[0]}, {bounds[1]}] goes beyond the {depth} layers of {model.reference}"
                hint = f"Give a range within [0, {depth}]."
                self.made.problems[f"range {scope} {model.reference}"] = RequestError(
                    what, where=self._at(part.line), hint=hint
                )
        if self.made.problems:
            return length
        start = [bounds[0] if bounds else 0 for bounds in ranges]
        parts = {id(model): parts_of_layers(self.seen[id(model)], tower, chosen) for model in models}
        own = start[1 if part.base and part.sources else 0]
        layers.extend(range(own, own + length))
        for i in range(length):
            suffixes = dict.fromkeys(
                suffix for k, model in enumerate(models) for suffix in parts[id(model)].get(start[k] + i, ())
            )
            for suffix in suffixes:
                read = {k: f"{tower}.{begin + i}.{suffix}" for k, begin in enumerate(start)}
                where = i / (length - 1) if length > 1 else 1.0
                self._slice_job(module, part, f"{tower}.{done + i}.{suffix}", read, scope, where)
        return length

    def _slice_job(
        self, module: Module, part: Slice, output: str, read: Mapping[int, str], scope: str, where: float
    ) -> None:
        models = [self.models.of(model) for model in part.models]
        held = [self.seen[id(model)].get(read[k]) for k, model in enumerate(models)]
        found = [source for source in held if source is not None]
        if is_derived(output, found[0]):
            self._add(output, found[0], (), (), None, None, "", 0.0, ())
            return
        if part.base and held[0] is None:
            self._remark(output, "the experts hold ", f" that {models[0].reference} lacks; left out")
            return
        if part.base and part.sources and len(found) == 1:
            self._remark(output, "no expert has ", f" of {models[0].reference}; copied from there")
            self._add(output, found[0], (), (), None, None, "", 0.0, ())
            return
        lacking = next((k for k, source in enumerate(held) if source is None), None)
        if lacking is not None:
            what = f"lacks '{read[lacking]}', which layer by layer belongs to it"
            problem = RequestError(what, where=models[lacking].reference)
            self.made.problems.setdefault(f"lacks {models[lacking].reference}", problem)
            return
        shapes = {source.shape for source in found}
        if len(shapes) > 1:
            said = ", ".join(f"{list(s.shape)} in {m.reference}" for s, m in zip(found, models, strict=True))
            problem = RequestError(f"'{output}' has other shapes: {said}", where=self._at(part.line))
            self.made.problems.setdefault(f"shape {output}", problem)
            return
        base = found.pop(0) if part.base else None
        numbers = self._numbers(part, models[1 if part.base else 0 :])
        names = [read[k] for k in range(1 if part.base else 0, len(models))]
        stages = self._stages(module, part) if part.sources else ()
        self._add(output, base, tuple(found), numbers, module, part, scope, where, stages, names)

    # One job

    def _add(
        self,
        name: str,
        base: Source | None,
        sources: tuple[Source, ...],
        numbers: tuple[int, ...],
        module: Module | None,
        part: Slice | None,
        scope: str,
        where: float | None,
        stages: Stages,
        names: Sequence[str] | None = None,
    ) -> None:
        sample = base or sources[0]
        encoder = self._encoder(name, base)
        if encoder is not None and (module is None or part is None or not sources or not sample.numel):
            for stored in encoder.stored:
                output = OutputTensor(stored.name, stored.dtype, stored.shape)
                self.made.jobs[stored.name] = Job(output, None, stored, (), ())
            return
        if module is None or part is None or not sources or sample.dtype not in MERGEABLE:
            copied = base if not sources else None
            sources_ = () if copied is not None else sources
            output = OutputTensor(name, sample.dtype, sample.shape)
            self.made.jobs[name] = self._as_copy(Job(output, None, base, sources_, numbers[: len(sources_)]))
            return
        kind, method = kind_of(name), self.recipe.method_of(module)
        dtype = self.types.of(name, (*(() if base is None else (base,)), *sources)) if encoder is None else FLOAT32
        output = OutputTensor(name, dtype, sample.shape)
        extras = inputs_of(name, self.inputs) if names is None and self.inputs else {}
        wide = self.wish.wide or FLOAT64.name in [sample.dtype.name, *[source.dtype.name for source in sources]]
        further = tuple(sorted(extras)) if extras else ()
        values = self.values.of(
            module,
            part,
            name=name,
            names=names or [name] * len(sources),
            where=where,
            sample=sample,
            more={"kind": kind, "has_base": base is not None, "wide": wide, "further": further},
        )
        more = extras, self.wish.wide, scope, encoder
        self.made.jobs[name] = Job(output, method, base, sources, numbers, values, stages, *more)

    def _encoder(self, name: str, base: Source | None) -> Encoder | None:
        """What writes the tensor as the base has it, if it is to be and the base quantises it."""
        if not self.wish.encoders or self.models.base is None or base is None:
            return None
        encoder = self.wish.encoders.get(base.name)
        if encoder is None or self.seen[id(self.models.base)].get(base.name) is not base:
            return None
        if base.name != name:
            what = f"'{name}' is made of '{base.name}', whose codes and scales keep their names"
            self.made.problems.setdefault(f"renamed {name}", RequestError(what, where=self._at(None)))
        return encoder

    def _as_copy(self, job: Job) -> Job:
        """A float tensor that is only copied is still stored as the output asks."""
        (first, *others) = job.sources
        if others or first.dtype not in MERGEABLE:
            return job
        dtype = self.types.of(job.name, (first,))
        if dtype is first.dtype:
            return job
        from rlmerge.methods import get

        values: dict[str, Any] = {"experts": 1.0, "numel": first.numel, "wide": self.wish.wide, "scale": np.ones(1)}
        output = OutputTensor(job.name, dtype, job.output.shape)
        return Job(output, get("passthrough"), None, (first,), (), values)

    def _refuse(self, problem: str, name: str) -> None:
        self.made.problems.setdefault(problem, RequestError(problem, where=f"{self._at(None)}: {name}"))

    def _at(self, line: int | None) -> str:
        origin = self.recipe.origin or "recipe"
        return f"{origin}:{line}" if line else origin

    def check(self) -> None:
        """RecipeError with every problem."""
        if self.made.problems:
            raise RecipeError(shortened(list(self.made.problems.values())))
