"""``rlmerge calibrate``: from a recipe and prompts to the same recipe with coefficients that follow the experts."""

from __future__ import annotations

import platform
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from rlmerge._version import __version__
from rlmerge.calibration.directions import Directions, Store, along, find_directions, with_values
from rlmerge.calibration.divergence import Merged
from rlmerge.calibration.experts import check_places, listen
from rlmerge.calibration.fit import Fitted, minimise
from rlmerge.calibration.groups import make_groups, rounded
from rlmerge.calibration.options import CalibrationOptions
from rlmerge.calibration.request import Prompts, check_recipe, check_vocabularies, data_of, read_prompts
from rlmerge.calibration.results import Calibration, Divergence
from rlmerge.calibration.stages import STARTS, Speaker, beside, compare, divergence, means
from rlmerge.calibration.written import with_provenance
from rlmerge.errors import RequestError, RunError
from rlmerge.jsondata import write_text
from rlmerge.language.model import Causal, find_device, load_causal, match_parameters
from rlmerge.merging.make import Opened, open_recipe
from rlmerge.options import Options
from rlmerge.progress import Progress, Quiet
from rlmerge.recipe import Recipe
from rlmerge.report.console import size_text
from rlmerge.report.names import model_names
from rlmerge.sensitivity.passes import enable_checkpointing

BASE = "base"
"""What the base is called where it speaks on prompts of no expert."""

_FLAT = 1e-9
"""Largest slope, over the objective, up to which no coefficient matters."""


def calibrate(
    recipe: Recipe,
    out: Path,
    prompts: Prompts,
    drift: str | None = None,
    options: CalibrationOptions | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Fit the coefficients of ``recipe`` to what its experts say, and write it with them to ``out``.

    Minimises Σ_k KL(π_k ‖ π_merged), in nats a token on the experts' own responses to ``prompts``, over a ``weight``
    for each expert and group of tensors, or over ``lambda`` for each group where the method is not linear in weights;
    the base counts as one more expert on the prompts of ``drift``. Held at a time: one model on the device, its
    gradient (with ``stream_gradients`` one tensor's) and a batch's activations; and, in memory or in ``scratch``, the
    base and a change for each expert in float32. RequestError when the request or an input is wrong, RunError when the
    run fails; nothing is written then.
    """
    started = time.monotonic()
    options, progress = options or CalibrationOptions(), progress or Quiet()
    check_recipe(recipe, out, options.force)
    merging = Options(memory=options.memory, workers=options.workers, dtype="float64", out_dtype="float64")
    opened = open_recipe(recipe, merging)
    plan = opened.plan(recipe, None, merging)
    names = model_names(plan.experts)
    data = data_of(prompts, names, [expert.reference for expert in plan.experts])
    sets = [read_prompts(each, options) for each in data]
    general = None if drift is None else read_prompts(drift, options)
    assert plan.base is not None, "calibrated recipes have a base"
    check_vocabularies(plan.base, plan.experts)
    device = find_device(options.device)
    directions = _directions(recipe, opened, options, merging, progress)
    groups = make_groups(directions.changes, options.layer_groups, options.kinds)
    causal = load_causal(plan.base.path, device, options.dtype)
    parameters, _ = match_parameters(causal.model, plan.base)
    check_places(plan, parameters)
    heard = list(listen(causal, plan, parameters, sets, general, options, progress))
    asked = [("expert", 1.0, name, each, dataset) for name, each, dataset in zip(names, data, sets, strict=True)]
    if drift is not None and general is not None:
        asked.append(("drift", options.drift_weight, BASE, drift, general))
    speakers = [Speaker(n, role, w, d, s, h) for (role, w, n, d, s), h in zip(asked, heard, strict=True)]
    if options.gradient_checkpointing:
        enable_checkpointing(causal.model)
    merged = Merged(causal, parameters, directions, groups, options)
    coefficients = beside(plan, directions)
    stages = {name: compare(merged, each, speakers) for name, each in coefficients.items()}
    start = min(STARTS, key=lambda name: stages[name].objective)
    fitted = _fit(merged, speakers, means(coefficients[start], directions, groups), options, progress)
    values = [[rounded(float(value)) for value in row] for row in fitted.values]
    calibrated = with_values(recipe, directions.parameter, [groups.setting(row) for row in values])
    opened.plan(calibrated, None, merging)  # what was fitted must be a recipe that merges
    stages["calibrated"] = compare(merged, merged.grouped(np.array(values)), speakers)
    objective = {name: stage.objective for name, stage in stages.items()}
    divergences = tuple(divergence(k, speaker, stages, options) for k, speaker in enumerate(speakers))
    text = with_provenance(
        calibrated, directions.parameter, len(groups.labels), objective, divergences, asdict(options), _versions()
    )
    try:
        write_text(out, text)
    except OSError as error:
        hint = "Make room, or write elsewhere with -o."
        raise RunError(f"cannot be written ({error.strerror})", where=str(out), hint=hint) from error
    return Calibration(
        out=out,
        recipe=text,
        method=recipe.method.name,
        parameter=directions.parameter,
        experts=tuple(names),
        groups=groups.labels,
        values=tuple(map(tuple, values)),
        start=start,
        objective=objective,
        divergences=divergences,
        history=fitted.history,
        converged=fitted.converged,
        nonlinear=directions.error,
        held=_held(causal, directions, options),
        seconds=time.monotonic() - started,
        peak_memory=_peak_memory(),
        settings=asdict(options),
        versions=_versions(),
        warnings=tuple(dict.fromkeys([*plan.warnings, *_doubts(directions, fitted, divergences, options)])),
    )


def _directions(
    recipe: Recipe, opened: Opened, options: CalibrationOptions, merging: Options, progress: Progress
) -> Directions:
    find = find_directions if options.fit == "auto" else along(options.fit)
    found = find(recipe, opened, Store(options.scratch), merging, progress)
    if not any(change.any() for change in found.changes.values()):
        what = "the merge is the base whatever the coefficients: the experts do not differ from it"
        raise RequestError(what, where=recipe.origin or "recipe", hint="Check the models, and lambda if there is one.")
    return found


def _fit(
    merged: Merged, speakers: Sequence[Speaker], start: np.ndarray, options: CalibrationOptions, progress: Progress
) -> Fitted:
    """The coefficients of the least objective; RequestError when it does not depend on them."""
    voices = [speaker.fitting for speaker in speakers]
    seen: list[float] = []

    def slope(values: np.ndarray) -> tuple[float, np.ndarray]:
        objective, slopes = merged.slope(values, voices, progress.advance)
        if not seen and np.abs(slopes).max() <= _FLAT * abs(objective):
            what = "no coefficient changes what the merged model says on these prompts"
            raise RequestError(what, where="--prompts", hint="Use prompts that the experts answer unlike the base.")
        seen.append(objective)
        progress.message(f"evaluation {len(seen)}: {objective:.6g} nats a token")
        return objective, slopes

    progress.start("Fitting", 0, "sequences")
    found = minimise(slope, start, options.steps, options.ridge)
    progress.done()
    return found


def _doubts(
    directions: Directions, fitted: Fitted, divergences: Sequence[Divergence], options: CalibrationOptions
) -> Iterator[str]:
    """What a reader should know before the values are used."""
    if options.fit == "auto" and directions.parameter == "lambda":
        yield "the method is not linear in its weights: lambda was fitted, with the weights as the recipe gives them"
    if not fitted.converged:
        yield f"the search stopped after {options.steps} steps before it came to rest; give it more with --steps"
    for each in divergences:
        if not each.held_out:
            yield f"{each.name} has no prompts held out, so nothing shows that its values hold beyond those fitted on"
        elif each.held_out["calibrated"] > each.held_out["given"] and each.role == "expert":
            yield f"on prompts held out, the merge is now farther from {each.name} than the recipe as given"
        if each.told_apart < 0.95:
            yield (
                f"the {options.top} likeliest tokens hold {each.told_apart:.0%} of what {each.name} finds likely; "
                "raise --top to tell more apart"
            )
        if each.dropped:
            yield f"{each.dropped} prompts of {each.name} left no room for a response and were dropped"


def _held(causal: Causal, directions: Directions, options: CalibrationOptions) -> str:
    """What was in memory, for those who plan a larger run."""
    parameters = list(causal.model.parameters())
    model = sum(p.numel() * p.element_size() for p in parameters)
    largest = max(p.numel() * p.element_size() for p in parameters)
    numbers = sum(base.nbytes + directions.changes[name].nbytes for name, base in directions.base.items())
    place = "memory" if options.scratch is None else f"files of {options.scratch}"
    gradient = f"one tensor's gradient (up to {size_text(largest)})" if options.stream_gradients else "its gradient"
    return (
        f"{causal.device}: the model ({size_text(model)}), {gradient} and the activations of "
        f"{options.batch_size} sequences; {place}: base and {directions.count} changes ({size_text(numbers)})"
    )


def _versions() -> dict[str, str]:
    return {
        "rlmerge": __version__,
        "torch": str(torch.__version__),
        "transformers": version("transformers"),
        "python": platform.python_version(),
    }


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
