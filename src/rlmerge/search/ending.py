"""What a search ends with: its winner confirmed, how far proxies can be trusted, and everything written down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlmerge.errors import RequestError, RunError
from rlmerge.evaluate.evaluator import Score
from rlmerge.jsondata import write_text
from rlmerge.merging.plan import Plan
from rlmerge.progress import Progress
from rlmerge.recipe import Recipe

from .baseline import baseline_recipe, best_row
from .candidates import Candidate, Maker
from .confirm import Entrant, confirm, correlation
from .judging import Judge
from .objectives import PROXIES
from .results import Comparison, Correlation, Finalist, Trial, Tuning
from .scoring import SHARES, Bench, Subject
from .selection import best_trial, front
from .settings import Settings
from .space import METHOD, Space
from .study import Study

Write = Callable[[Plan, Path, Progress], object]
"""Carries out a plan into a directory."""

WINNER = "winner"
SPREAD = 8
"""Candidates of a search by proxies alone that are scored to see what the proxies are worth."""


class Ending:
    """Ends one call of a search."""

    def __init__(
        self, space: Space, settings: Settings, study: Study, maker: Maker, judge: Judge, progress: Progress
    ) -> None:
        self.space, self.settings, self.study = space, settings, study
        self.maker, self.judge, self.progress = maker, judge, progress
        self.warnings: list[str] = []

    def finish(
        self,
        folder: Path,
        first: Recipe,
        subjects: Sequence[Subject],
        write: Write | None,
        began: float,
        warnings: Sequence[str],
    ) -> Tuning:
        """Choose, confirm, write ``best.yaml``, ``tune.json``, ``report.html``; RunError when nothing is complete."""
        trials = self.study.trials()
        best = best_trial(trials)
        if best is None:
            hint = "Give it more trials or hours, and start it again."
            raise RunError(f"none of {len(trials)} candidates was scored to the end", hint=hint)
        correlations = self._correlations(trials)
        rows = self.study.baseline or []
        recipe, winner = self._recipe(best), best.number
        if rows and self.judge.needs_scores and best_row(rows)["values"][0] >= best.values[0]:
            row = best_row(rows)
            recipe, winner = baseline_recipe(first, row["coefficient"]), None
        finalists, comparisons = self._confirm(first, recipe, best, winner, rows)
        self._look_at(trials, best)
        merged = None if write is None else self._merge(folder, recipe, write)
        method = str(best.parameters.get(METHOD)) if self.space.method and self.space.method.is_free else None
        found = Tuning(
            out=folder,
            base=subjects[0].name,
            experts=tuple(subject.name for subject in subjects[1:]),
            tasks=tuple(self.judge.bench.labels) if self.judge.bench else (),
            objectives=tuple(
                {"name": objective.name, "meaning": objective.describe()} for objective in self.settings.objectives
            ),
            dimensions=tuple(dimension.to_dict() for dimension in self.space.dimensions),
            shares=SHARES[-self.judge.levels :] if self.judge.levels > 1 else (1.0,),
            trials=trials,
            baseline=tuple(rows),
            best=winner,
            front=tuple(trial.number for trial in front(trials)) if self.settings.is_multiple else (),
            recipe=recipe.text,
            importance=self.study.importance(method),
            correlations=tuple(correlations),
            finalists=tuple(finalists),
            comparisons=tuple(comparisons),
            reads=self.maker.passes,
            seconds=time.monotonic() - began,
            merged=merged,
            warnings=tuple(
                dict.fromkeys([*warnings, *(self.judge.bench.warnings if self.judge.bench else ()), *self.warnings])
            ),
            settings=_plain(self.settings),
        )
        self._write(folder, found)
        return found

    def _recipe(self, trial: Trial) -> Recipe:
        fixed = {
            dimension.name: dimension.choices[0] if dimension.choices else dimension.low
            for dimension in self.space.dimensions
            if not dimension.is_free
        }
        return self.space.recipe({**fixed, **trial.parameters})

    def _correlations(self, trials: Sequence[Trial]) -> list[Correlation]:
        """Rank correlations of every proxy with the first real objective, over all candidates scored to the end."""
        if self.judge.is_blind:
            return []
        real = self.judge.real_objectives[0].name
        done = [trial for trial in trials if trial.state == "complete" and trial.proxies]
        if self.judge.needs_scores:
            place = next(k for k, objective in enumerate(self.settings.objectives) if not objective.is_proxy)
            pairs: list[tuple[Mapping[str, float], float]] = [(trial.proxies, trial.values[place]) for trial in done]
        else:
            pairs = self._scored_spread(done)
        found = [
            correlation(name, real, [(proxies[name], value) for proxies, value in pairs if name in proxies])
            for name in PROXIES
        ]
        return [each for each in found if each is not None]

    def _scored_spread(self, done: Sequence[Trial]) -> list[tuple[Mapping[str, float], float]]:
        """Candidates spread over the ranks of the proxy, scored for real."""
        assert self.judge.bench is not None, "blind searches have no correlation"
        ranked = sorted(done, key=lambda trial: trial.values[0])
        count = min(SPREAD, len(ranked))
        places = [round(k * (len(ranked) - 1) / max(1, count - 1)) for k in range(count)]
        chosen = [ranked[place] for place in dict.fromkeys(places)]
        pairs: list[tuple[Mapping[str, float], float]] = []
        for trial in chosen:
            candidate = self._made(self._recipe(trial), f"spread-{trial.number:05}")
            try:
                scores = self.judge.bench.score(candidate, -1)
            finally:
                candidate.discard()
            pairs.append((trial.proxies, self.judge.real(scores, -1)[0]))
        return pairs

    def _made(self, recipe: Recipe, name: str) -> Candidate:
        made = self.maker.make({name: recipe})[name]
        if not isinstance(made, Candidate):
            raise made
        return made

    def _confirm(
        self, first: Recipe, recipe: Recipe, best: Trial, winner: int | None, rows: Sequence[Mapping[str, Any]]
    ) -> tuple[list[Finalist], list[Comparison]]:
        """The winner on test items against tuned task arithmetic, the best single expert and the base."""
        if self.judge.is_blind:
            self.warnings.append("nothing was scored: the winner is the best by a proxy, which is no score")
            return [], []
        entrants = self._entrants(best, winner, rows)
        if not self.settings.test:
            self.warnings.append(
                "the winner was not confirmed: its score is on the items it was chosen by, and so too high; add test "
                "items"
            )
            finalists = [Finalist(each.name, each.role, each.dev, None, {}) for each in entrants]
            return finalists, []
        self.progress.message("confirming on test items")
        bench = Bench(self.settings.test, self.settings.evaluate, self.settings.test_limit, False, self.progress)
        bench.score_references(self.judge.subjects)
        own = {task: self.judge.standards.own.get(task, ()) for task in bench.labels}
        absent = [task for task in self.judge.standards.own if task not in bench.labels]
        if absent:
            hint = "Give test items of every task that the search chooses by."
            raise RequestError(f"the test has no task '{absent[0]}'", where="test", hint=hint)
        standards = replace(self.judge.standards, own=own)
        scores: dict[str, dict[str, Score]] = {task: dict(row) for task, row in bench.references.items()}
        coefficients = {row["name"]: row["coefficient"] for row in rows}
        recipes = {each.name: recipe for each in entrants if each.role == WINNER}
        recipes |= {
            each.name: baseline_recipe(first, coefficients[each.name])
            for each in entrants
            if each.role == "task arithmetic"
        }
        for name, each in recipes.items():
            candidate = self._made(each, "confirm")
            try:
                for task, score in bench.score(candidate, -1).items():
                    scores[task][name] = score
            finally:
                candidate.discard()
        objectives = self.judge.real_objectives
        finalists, comparisons, warnings = confirm(scores, entrants, objectives, standards)
        self.warnings += [*bench.warnings, *warnings]
        return finalists, comparisons

    def _entrants(self, best: Trial, winner: int | None, rows: Sequence[Mapping[str, Any]]) -> list[Entrant]:
        """The winner, then what it has to beat, each with its first real objective on the items of the search."""
        arithmetic = best_row(rows)
        base, *experts = (subject.name for subject in self.judge.subjects)
        single = max(experts, key=lambda name: self.judge.reference(name)[0])
        others = [
            Entrant(single, "expert", self.judge.reference(single)[0]),
            Entrant(base, "base", self.judge.reference(base)[0]),
        ]
        tuned = Entrant(arithmetic["name"], "task arithmetic", arithmetic["values"][0])
        if winner is None:
            return [replace(tuned, role=WINNER), *others]
        return [Entrant(f"trial {winner}", WINNER, self._dev(best)), tuned, *others]

    def _dev(self, best: Trial) -> float:
        """The winner's first real objective on the items of the search."""
        if self.judge.needs_scores:
            place = next(k for k, objective in enumerate(self.settings.objectives) if not objective.is_proxy)
            return best.values[place]
        assert self.judge.bench is not None, "blind searches have no entrants"
        candidate = self._made(self._recipe(best), "winner")
        try:
            return self.judge.real(self.judge.bench.score(candidate, -1), -1)[0]
        finally:
            candidate.discard()

    def _look_at(self, trials: Sequence[Trial], best: Trial) -> None:
        """Warnings about a search that says little."""
        done = [trial for trial in trials if trial.state == "complete"]
        failed = sum(trial.state == "fail" for trial in trials)
        if len(done) > 2 and len({trial.values for trial in done}) == 1:
            value = ", ".join(f"{value:.4g}" for value in best.values)
            self.warnings.append(f"the objective is {value} for all {len(done)} candidates: it tells nothing apart")
        if failed:
            error = next(trial.error for trial in trials if trial.state == "fail") or ""
            self.warnings.append(f"{failed} of {len(trials)} trials failed; the first: {error.splitlines()[0]}")
        for dimension in self.space.dimensions:
            value = best.parameters.get(dimension.name)
            span = dimension.high - dimension.low
            if dimension.choices or not isinstance(value, float) or span <= 0 or len(done) < 8:
                continue
            if min(value - dimension.low, dimension.high - value) < 0.01 * span:
                self.warnings.append(f"{dimension.name} ends at {value:.4g}, the end of its range; widen the range")

    def _merge(self, folder: Path, recipe: Recipe, write: Write) -> Path:
        """The winner as a sealed model directory."""
        out = folder / "merged"
        options = replace(self.maker.options, force=True)
        self.progress.message("merging the winner")
        write(self.maker.opened.plan(recipe, out, options), out, self.progress)
        return out

    def _write(self, folder: Path, found: Tuning) -> None:
        """RunError when the disk does not take a file."""
        head = f"# Found by rlmerge tune in {len(found.trials)} trials; scores and doubts are in report.html.\n"
        files = {"best.yaml": head + found.recipe, "tune.json": found.to_json() + "\n", "report.html": found.to_html()}
        for name, text in files.items():
            try:
                write_text(folder / name, text)
            except OSError as error:
                hint = "Make room and run the same command again: every trial is kept."
                raise RunError(f"cannot be written ({error.strerror})", where=str(folder / name), hint=hint) from error


def _plain(settings: Settings) -> dict[str, Any]:
    names = ("trials", "hours", "sampler", "round", "seed", "limit", "test_limit", "prune")
    return {name: getattr(settings, name) for name in names} | {
        "tasks": list(settings.tasks),
        "test": list(settings.test),
        "prompts": dict(settings.prompts or {}),
    }
