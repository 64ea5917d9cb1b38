"""The study of a search in Optuna's own storage: its dashboard reads it, a killed search goes on, several share it.

Every trial names its process. The values of trials that a killed one left under way are asked for again.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlmerge.errors import RequestError, RunError
from rlmerge.extras import require
from rlmerge.recipe.tree import Scalar

from .results import Trial
from .settings import Settings
from .space import METHOD, Space
from .workers import Workers

NAME = "study.db"
TITLE = "rlmerge"
"""What the study is called inside its database."""

AGAIN = "again"
"""Where a trial is from whose values a killed process left."""

Suggest = Callable[[int], Sequence[tuple[Mapping[str, Scalar], str]]]
"""Values to try next with their origin, up to so many."""

_SIGNATURE, _BASELINE = "rlmerge:search", "rlmerge:baseline"
_STARTUP = 10


class Study:
    """Trials of one search in ``folder``. RequestError when it holds the study of another search or something else."""

    def __init__(self, folder: Path, space: Space, settings: Settings, signature: Mapping[str, Any]) -> None:
        self.optuna = require("optuna")
        self.optuna.logging.set_verbosity(self.optuna.logging.WARNING)
        self.folder, self.space, self.settings = folder, space, settings
        self.workers = Workers(folder)
        with self.workers.exclusive(), self._kept():
            self._study = self._open()
            self.is_new = self._sign(signature)
            self._study.sampler = self._sampler()

    @property
    def is_alone(self) -> bool:
        """Whether no other process works, or has worked, on the study."""
        return self.is_new and self.workers.are_none_else

    def close(self) -> None:
        """Let others know that this process has ended."""
        self.workers.leave()

    # Asking and telling

    def ask(self, count: int, first: Suggest | None = None) -> list[tuple[Any, dict[str, Scalar]]]:
        """Up to ``count`` new trials with their values, as far as the budget of trials goes.

        ``first`` says what to enqueue before, given the trials that are left for it. No other process asks meanwhile,
        which would take the sampler's values for what is about to be enqueued.
        """
        with self.workers.exclusive(), self._kept():
            self._recover()
            count = min(count, self.settings.trials - self.spent())
            room = count - self._waiting()
            if first is not None and room > 0:
                for values, origin in first(room):
                    self.enqueue(values, origin)
            return [self._ask() for _ in range(count)]

    def _ask(self) -> tuple[Any, dict[str, Scalar]]:
        trial = self._study.ask()
        trial.set_user_attr("worker", self.workers.name)
        values: dict[str, Scalar] = {}
        for dimension in sorted(self.space.dimensions, key=lambda each: each.path != (METHOD,)):
            method = values.get(METHOD)
            if not self.space.belongs(dimension, None if method is None else str(method)):
                continue
            if not dimension.is_free:
                values[dimension.name] = dimension.choices[0] if dimension.choices else dimension.low
            elif dimension.choices:
                values[dimension.name] = trial.suggest_categorical(dimension.name, dimension.choices)
            else:
                number = dimension.low, dimension.high
                values[dimension.name] = trial.suggest_float(
                    dimension.name, *number, log=dimension.log, step=dimension.step
                )
        return trial, values

    def report(self, trial: Any, level: int, value: float) -> None:
        """Keep a single objective on a part of the items; Optuna knows none of several."""
        with self._kept():
            trial.set_user_attr("level", level)
            if not self.settings.is_multiple:
                trial.report(value, level)

    def note(self, trial: Any, **attributes: Any) -> None:
        """Keep plain data with a trial."""
        with self._kept():
            for name, value in attributes.items():
                trial.set_user_attr(name, value)

    def complete(self, trial: Any, values: Sequence[float]) -> None:
        """The objectives on all items."""
        with self._kept():
            self._study.tell(trial, list(values))

    def stop(self, trial: Any) -> None:
        """Stopped on a part of the items."""
        with self._kept():
            self._study.tell(trial, state=self.optuna.trial.TrialState.PRUNED)

    def fail(self, trial: Any, error: str) -> None:
        """No objective: the study goes on without it."""
        with self._kept():
            trial.set_user_attr("error", error)
            self._study.tell(trial, state=self.optuna.trial.TrialState.FAIL)

    def repeat(self, trial: Any, number: int) -> None:
        """End as the finished trial ``number`` did, whose values are the same."""
        states = self.optuna.trial.TrialState
        with self._kept():
            found = next(t for t in self._study.get_trials(deepcopy=False) if t.number == number)
            for name in ("level", "scores", "proxies", "error"):
                if name in found.user_attrs:
                    trial.set_user_attr(name, found.user_attrs[name])
            trial.set_user_attr("repeats", number)
            if not self.settings.is_multiple:
                for level, value in found.intermediate_values.items():
                    trial.report(value, level)
            done = found.state == states.COMPLETE
            self._study.tell(trial, found.values if done else None, state=None if done else found.state)

    def enqueue(self, values: Mapping[str, Scalar], origin: str) -> None:
        """Ask for these values before any of the sampler's; what they leave out is sampled."""
        free = {d.name: values[d.name] for d in self.space.dimensions if d.is_free and d.name in values}
        if free:
            with self._kept(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                # What was killed is there already, and is asked for all the same.
                skip = origin != AGAIN
                self._study.enqueue_trial(free, user_attrs={"origin": origin}, skip_if_exists=skip)

    # What is known

    def spent(self) -> int:
        """Trials that count: finished ones and those under way, without those that a kill cut short."""
        states = self.optuna.trial.TrialState
        return sum(
            t.state in (states.COMPLETE, states.PRUNED, states.RUNNING)
            or (t.state == states.FAIL and not t.user_attrs.get("killed"))
            for t in self._study.get_trials(deepcopy=False)
        )

    def _waiting(self) -> int:
        """Values that were asked for and not tried yet."""
        states = (self.optuna.trial.TrialState.WAITING,)
        return len(self._study.get_trials(deepcopy=False, states=states))

    def trials(self) -> tuple[Trial, ...]:
        """Every trial that finished, in the order in which they began."""
        with self._kept():
            found = self._study.get_trials(deepcopy=False)
        return tuple(_trial(each) for each in found if each.state.is_finished() and not each.user_attrs.get("killed"))

    def at_level(self, level: int) -> list[float]:
        """The objective on that share of the items, of all trials that got there."""
        with self._kept():
            found = self._study.get_trials(deepcopy=False)
        return [t.intermediate_values[level] for t in found if level in t.intermediate_values]

    def has_origin(self, origin: str) -> bool:
        """Whether values from there were ever asked for."""
        with self._kept():
            return any(t.user_attrs.get("origin") == origin for t in self._study.get_trials(deepcopy=False))

    @property
    def baseline(self) -> list[dict[str, Any]] | None:
        """What was kept of the baseline."""
        return self._study.user_attrs.get(_BASELINE)

    def keep_baseline(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep the scores of the baseline's recipes, so that a search that goes on need not make them again."""
        with self._kept():
            self._study.set_user_attr(_BASELINE, [dict(row) for row in rows])

    def importance(self, method: str | None) -> dict[str, float]:
        """Share of what decides the first objective that is each parameter's, by PED-ANOVA (arXiv 2304.10255).

        The choice of the method is weighed over all trials; a method's own parameters, with ``method``, over its own.
        Empty below six complete trials.
        """
        found: dict[str, float] = {}
        for only in dict.fromkeys((None, method)):
            trials = [
                t
                for t in self._study.get_trials(deepcopy=False)
                if t.state == self.optuna.trial.TrialState.COMPLETE and only in (None, t.params.get(METHOD))
            ]
            names = set(trials[0].params).intersection(*(t.params for t in trials)) if trials else set[str]()
            names = {n for n in names if len({t.params[n] for t in trials}) > 1}
            if len(trials) < 6 or not names or len({t.values[0] for t in trials}) == 1:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                copy = self.optuna.create_study(directions=[each.name.lower() for each in self._study.directions])
                copy.add_trials(trials)
                got = self.optuna.importance.get_param_importances(
                    copy,
                    evaluator=self.optuna.importance.PedAnovaImportanceEvaluator(),
                    params=sorted(names),
                    target=lambda t: t.values[0],
                )
            found.update({name: float(share) for name, share in got.items()})
        return dict(sorted(found.items(), key=lambda pair: -pair[1]))

    # Storage

    def _open(self) -> Any:
        url = require("sqlalchemy").engine.URL.create("sqlite", database=str(self.folder / NAME))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            storage = self.optuna.storages.RDBStorage(
                url.render_as_string(), engine_kwargs={"connect_args": {"timeout": 60}}
            )
        names = [summary.study_name for summary in self.optuna.get_all_study_summaries(storage)]
        if TITLE in names:
            return self.optuna.load_study(study_name=TITLE, storage=storage)
        directions = ["maximize"] * len(self.settings.objectives)
        study = self.optuna.create_study(study_name=TITLE, storage=storage, directions=directions)
        study.set_metric_names([objective.name for objective in self.settings.objectives])
        return study

    def _sign(self, signature: Mapping[str, Any]) -> bool:
        """Whether the study is new; RequestError when it is of another search."""
        known: str | None = self._study.user_attrs.get(_SIGNATURE)
        if known is None:
            self._study.set_user_attr(_SIGNATURE, json.dumps(signature, sort_keys=True))
            return True
        before = json.loads(known)
        changed = sorted(name for name in {*before, *signature} if before.get(name) != signature.get(name))
        if changed:
            what = f"holds a search with other {', '.join(changed)}"
            hint = "Give the new search a directory of its own, with --warm to start it from this one."
            raise RequestError(what, where=str(self.folder), hint=hint)
        return False

    def _sampler(self) -> Any:
        settings, samplers = self.settings, self.optuna.samplers
        seed = settings.seed + len(self._study.get_trials(deepcopy=False))
        kind = settings.sampler
        if kind == "auto":
            kind = "nsga2" if settings.is_multiple else "tpe"
        numbers = all(not d.choices for d in self.space.dimensions if d.is_free)
        if kind == "cmaes" and (settings.is_multiple or not numbers):
            hint = "Take tpe, or fix the choices."
            raise RequestError("CMA-ES searches numbers, for one objective", where="sampler", hint=hint)
        startup = max(1, min(_STARTUP, settings.trials // 3))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == "cmaes":
                require("cmaes")
                return samplers.CmaEsSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
            if kind == "nsga2":
                return samplers.NSGAIISampler(seed=seed, population_size=min(50, max(4, settings.trials // 4)))
            if kind == "random":
                return samplers.RandomSampler(seed=seed)
            return samplers.TPESampler(
                seed=seed, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True
            )

    def _recover(self) -> None:
        """Fail what killed processes left under way, and ask for the same values again."""
        states = self.optuna.trial.TrialState
        for found in self._study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            if self.workers.is_alive(found.user_attrs.get("worker", "")):
                continue
            trial = self.optuna.trial.Trial(self._study, found._trial_id)
            trial.set_user_attr("killed", True)
            self._study.tell(trial, state=states.FAIL)
            self.enqueue(found.params, AGAIN)

    @contextmanager
    def _kept(self) -> Generator[None]:
        """RunError when the study cannot be read or written."""
        errors = (self.optuna.exceptions.StorageInternalError, require("sqlalchemy").exc.SQLAlchemyError)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except errors as error:
            cause = error.__cause__ or error
            hint = "Make room and run the same command again: finished trials are kept. A damaged file must go."
            what = f"the study cannot be kept ({str(cause).splitlines()[0]})"
            raise RunError(what, where=str(self.folder / NAME), hint=hint) from error


def _trial(found: Any) -> Trial:
    attributes = found.user_attrs
    return Trial(
        number=found.number,
        state=found.state.name.lower(),
        values=tuple(found.values) if found.values else (),
        parameters=dict(found.params),
        origin=attributes.get("origin", "sampled"),
        level=attributes.get("level", 0),
        at_levels=dict(sorted(found.intermediate_values.items())),
        seconds=attributes.get("seconds", 0.0),
        scores=attributes.get("scores", {}),
        proxies=attributes.get("proxies", {}),
        error=attributes.get("error"),
    )


def finished_values(
    folder: Path, most: int, locate: Callable[[Mapping[str, Any]], dict[str, Scalar]]
) -> list[dict[str, Scalar]]:
    """The values of the best trials of another study, in the terms of this search; RequestError when there is none."""
    optuna = require("optuna")
    file = folder / NAME if folder.is_dir() else folder
    if not file.is_file():
        hint = "Name the directory of a search that was run before."
        raise RequestError("holds no study", where=str(folder), hint=hint)
    url = require("sqlalchemy").engine.URL.create("sqlite", database=str(file)).render_as_string()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = optuna.load_study(study_name=TITLE, storage=optuna.storages.RDBStorage(url))
            done = [t for t in study.get_trials(deepcopy=False) if t.state == optuna.trial.TrialState.COMPLETE]
    except Exception as error:  # a file that is no study raises almost anything
        hint = "Name the directory of a search that was run before."
        raise RequestError(f"holds no study ({type(error).__name__})", where=str(folder), hint=hint) from error
    done.sort(key=lambda trial: -trial.values[0])
    found = [locate(trial.params) for trial in done[:most]]
    return [values for values in found if values]
