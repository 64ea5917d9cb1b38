"""Rounds: candidates merged in one read of the models, scored together, their worse halves stopped early."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from rlmerge.errors import RequestError, RlmergeError, RunError
from rlmerge.progress import Progress
from rlmerge.recipe import Recipe
from rlmerge.recipe.tree import Scalar

from .baseline import baseline_name, baseline_recipe, best_row, next_coefficients
from .candidates import Candidate, Maker
from .hook import Hook
from .judging import Judge
from .line import around, steps
from .scoring import Bench
from .settings import Settings
from .space import Space
from .study import Study

LARGEST_FACTOR = 32.0
"""No method begins at more than so many times the coefficient of another, or less than its inverse."""

LEAST_ROUND = 4
"""Trials of a round, as long as the settings allow as many."""

LINE = "line"
"""Where trials at other coefficients of the best one are from."""

FEW = 10
"""Trials of which the sampler learns too little to be asked."""

AROUND = "around"
"""Where trials beside the best one are from."""


class Rounds:
    """The rounds of one call."""

    def __init__(
        self,
        space: Space,
        settings: Settings,
        study: Study,
        maker: Maker,
        judge: Judge,
        progress: Progress,
        began: float,
    ) -> None:
        self.space, self.settings, self.study = space, settings, study
        self.maker, self.judge, self.progress = maker, judge, progress
        self.began = began
        self.hook = Hook(settings.hook) if settings.hook else None
        self.warnings: list[str] = []
        self._pace: float | None = None
        """Seconds a candidate took, in the last round."""

    def baseline(self, recipe: Recipe) -> None:
        """Score the baseline, unless an earlier call did."""
        bench = self.judge.bench
        if self.study.baseline is not None or bench is None:
            return
        rows: list[dict[str, Any]] = []
        while coefficients := next_coefficients(rows):
            rows += self._baseline_rows(bench, recipe, coefficients)
        self.study.keep_baseline(rows)
        best = best_row(rows)
        text = f"{best['name']}: {self.judge.objectives[0].name} {best['values'][0]:.3f}"
        self.progress.message(f"to beat: {text}")

    def _baseline_rows(self, bench: Bench, recipe: Recipe, coefficients: Sequence[float]) -> Iterator[dict[str, Any]]:
        """Task arithmetic at each of ``coefficients``, scored on all items."""
        size = self.maker.batch(recipe)
        for start in range(0, len(coefficients), size):
            known = {baseline_name(each): each for each in coefficients[start : start + size]}
            made = self.maker.make({name: baseline_recipe(recipe, each) for name, each in known.items()})
            for name, candidate in made.items():
                if not isinstance(candidate, Candidate):
                    raise candidate
                try:
                    self._announce(candidate)
                    scores = bench.score(candidate, -1)
                finally:
                    candidate.discard()
                row = {"name": name, "coefficient": known[name], "values": self.judge.real(scores, -1)}
                yield {**row, "scores": {task: score.value for task, score in scores.items()}}

    def factors(self, coefficient: float, starts: Mapping[str, Mapping[str, Scalar]]) -> dict[str, float]:
        """Times what coefficient each method keeps as much of the experts as task arithmetic does at ``coefficient``.

        ``starts`` are values at ``coefficient`` by method. Methods that drop entries, or average, keep less of the
        task vectors at the same weights. Takes one read of the models, without scores. What cannot be merged, or keeps
        nothing, is left out.
        """
        if not starts:
            return {}
        aimed = baseline_name(coefficient)
        asked = {aimed: baseline_recipe(self.space.recipe({}), coefficient)}
        for method, values in starts.items():
            with suppress(RequestError):  # The trial that begins there will say why.
                asked[method] = self.space.recipe(values)
        kept = self.maker.projections(asked)
        aim = kept.pop(aimed, 0.0)
        if aim <= 0:
            return {}
        return {
            name: min(LARGEST_FACTOR, max(1 / LARGEST_FACTOR, aim / found)) for name, found in kept.items() if found > 0
        }

    def rounds(self) -> None:
        """Rounds until the budget is spent, of a third of it at the most: what is learnt decides the next ones."""
        trials = max(LEAST_ROUND, self.settings.trials // 3)
        size = min(self.settings.round, self.maker.batch(self.space.recipe({})), trials)
        number = 0
        while count := self._affordable(size):
            if not (asked := self.study.ask(count, self._steps)):
                break
            number += 1
            started = time.monotonic()
            self._round(asked)
            self._pace = (time.monotonic() - started) / len(asked)
            self._tell(number)
            self._give_up()

    def _steps(self, room: int) -> Sequence[tuple[Mapping[str, Scalar], str]]:
        """Other coefficients of the best trial, and values beside its own, for up to ``room`` trials.

        A third of all trials at the most are such coefficients. Nothing where there are several objectives, or the
        sampler was chosen.
        """
        if self.settings.is_multiple or self.settings.sampler not in ("auto", "tpe"):
            return []
        trials = self.study.trials()
        left = self.settings.trials // 3 - sum(trial.origin == LINE for trial in trials)
        asked = [(values, LINE) for values in steps(trials, self.space)[: max(0, min(left, room))]]
        # Of a handful of trials a sampler learns nothing: it would draw from all of the space.
        beside = room - len(asked) if len(trials) < FEW else 1
        found = (around(trials, self.space, self.settings.seed, number) for number in range(beside))
        return [*asked, *((values, AROUND) for values in found if values is not None)][:room]

    def _affordable(self, size: int) -> int:
        """How many more candidates fit into the hours."""
        if self.settings.hours is None:
            return size
        left = self.settings.hours * 3600 - (time.monotonic() - self.began)
        if left <= 0:
            return 0
        return size if not self._pace else max(1, min(size, int(left / self._pace)))

    def _round(self, asked: Sequence[tuple[Any, dict[str, Scalar]]]) -> None:
        """Merge the candidates of a round in one read, score them, and stop the worse halves early.

        Values that were tried before get what they got then, unless they failed: that may pass.
        """
        recipes: dict[str, Recipe] = {}
        trials: dict[str, Any] = {}
        tried = {_key(trial.parameters): trial.number for trial in self.study.trials() if trial.state != "fail"}
        repeated: list[tuple[Any, int]] = []
        for trial, values in asked:
            first = tried.setdefault(_key(trial.params), trial.number)
            if first != trial.number:
                repeated.append((trial, first))
                continue
            name = f"trial-{trial.number:05}"
            trials[name] = trial
            try:
                recipes[name] = self.space.recipe(values)
            except RequestError as error:
                self._fail(trial, error)
        made = self.maker.make(recipes)
        alive: list[Candidate] = []
        for name, candidate in made.items():
            if isinstance(candidate, Candidate):
                alive.append(candidate)
            else:
                self._fail(trials[name], candidate)
        try:
            self._score(self._measured(alive, trials), trials)
        finally:
            for candidate in made.values():
                if isinstance(candidate, Candidate):
                    candidate.discard()
        for trial, first in repeated:
            self.study.repeat(trial, first)

    def _measured(self, alive: Sequence[Candidate], trials: Mapping[str, Any]) -> list[Candidate]:
        """The candidates with their proxies, without those whose proxies cannot be taken."""
        found: list[Candidate] = []
        for candidate in alive:
            try:
                candidate.proxies = self.judge.proxies(candidate)
            except RlmergeError as error:
                self._fail(trials[candidate.name], error)
                continue
            self.study.note(trials[candidate.name], proxies=dict(candidate.proxies))
            found.append(candidate)
        return found

    def _score(self, alive: Sequence[Candidate], trials: Mapping[str, Any]) -> None:
        spent = dict.fromkeys((candidate.name for candidate in alive), 0.0)
        for level in range(self.judge.levels):
            last = level == self.judge.levels - 1
            found: dict[str, list[float]] = {}
            for candidate in alive:
                trial, started = trials[candidate.name], time.monotonic()
                try:
                    if level == 0:
                        self._announce(candidate)
                    values, scores = self.judge.values(candidate, level)
                except Exception as error:  # whatever a harness raises costs its own candidate
                    self._fail(trial, error)
                    continue
                spent[candidate.name] += time.monotonic() - started
                self.study.note(trial, scores=scores, seconds=spent[candidate.name])
                self.study.report(trial, level, values[0])
                found[candidate.name] = values
                if last:
                    self.study.complete(trial, values)
                    candidate.discard()
            alive = [candidate for candidate in alive if candidate.name in found]
            if not last:
                alive = self._better_half(alive, trials, {name: values[0] for name, values in found.items()}, level)

    def _better_half(
        self, alive: Sequence[Candidate], trials: Mapping[str, Any], values: Mapping[str, float], level: int
    ) -> list[Candidate]:
        """The candidates in the upper half of all that were ever scored on this share of the items."""
        known = sorted([*self.study.at_level(level)], reverse=True)
        bar = known[(len(known) - 1) // 2] if known else float("-inf")
        kept: list[Candidate] = []
        for candidate in alive:
            if values[candidate.name] >= bar:
                kept.append(candidate)
            else:
                self.study.stop(trials[candidate.name])
                candidate.discard()
        return kept

    def _announce(self, candidate: Candidate) -> None:
        if self.hook is not None and candidate.directory is not None:
            self.hook.call(candidate.directory)

    def _fail(self, trial: Any, error: BaseException) -> None:
        text = str(error) if isinstance(error, RlmergeError) else f"{type(error).__name__}: {error}"
        self.study.fail(trial, text)
        self.progress.message(f"trial {trial.number} failed: {text.splitlines()[0] if text else ''}")

    def _tell(self, number: int) -> None:
        trials, total = self.study.trials(), self.settings.trials
        done = [trial for trial in trials if trial.values]
        best = max(done, key=lambda trial: trial.values[0], default=None)
        told = f"best so far {best.values[0]:.3f} (trial {best.number})" if best else "nothing complete yet"
        left = (total - len(trials)) * (self._pace or 0.0)
        if self.settings.hours is not None:
            left = min(left, max(0.0, self.settings.hours * 3600 - (time.monotonic() - self.began)))
        self.progress.message(f"round {number}: {len(trials)} of {total} trials, {told}, about {left:.0f} s left")

    def _give_up(self) -> None:
        """RunError when nothing but failures came of a whole round."""
        trials = self.study.trials()
        failed = [trial for trial in trials if trial.state == "fail"]
        if len(failed) == len(trials) and len(trials) >= min(self.settings.round, self.settings.trials):
            hint = "Correct what it says, and start the search in a new directory."
            raise RunError(f"all {len(trials)} candidates failed; the first: {failed[0].error}", hint=hint)


def _key(values: Mapping[str, Scalar]) -> str:
    """Equal for equal values, whatever their order."""
    return json.dumps(dict(values), sort_keys=True)
