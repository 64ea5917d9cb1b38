"""Hand-made studies: plain dicts in the schema of ``rlmerge.lab.study/1`` whose answers are known by construction.

Every figure of an arm in seed s is a constant of that arm plus ``DRIFT[s]``, which is the same for all arms and so
drops out of paired differences, plus ``SPLIT[s]`` for arms named in ``split``. Over five seeds SPLIT has mean 0.03 and
sample standard deviation √2.5 · 0.01, so its 95 % interval is 0.03 ± 2.776445 · 0.0158114/√5 = [0.0103676, 0.0496324].
"""

DRIFT = (0.00, 0.04, -0.03, 0.02, 0.01)
SPLIT = (0.01, 0.02, 0.03, 0.04, 0.05)
LOW, HIGH = 0.0103676, 0.0496324

TASKS = ("make", "steps")
FAMILY = ("task_arithmetic", "linear", "ties", "ram", "regmean", "regmean:sum", "tsv", "actmat", "covariance")
PARTS = (("layer", 0, 0.1), ("layer", 1, 0.1), ("layer", 2, 0.1), ("outside", None, 0.0), ("rest", 0, 0.9))
"""Part of a merge taken apart, its layer, and how much of the method's advantage it has in ``second_edition``."""
METHODS = ("linear", "task_arithmetic", "ties", "ram", "sar_merging", "scf_rkl")
ARMS = ("rl", "rl-bf16", "sft", "sft-high-lr", "rft", "rl-positive", "sft-long")


def study(seeds=5, *, gains=None, arms=ARMS, methods=METHODS, **changes):
    """A whole study. ``gains`` maps (arm, method, rule) to a function of the seed; the rest keep half of the gain."""
    gains = gains or {}
    numbers = range(seeds)
    cells = [(seed, arm) for seed in numbers for arm in arms]
    rows = {
        "schema": "rlmerge.lab.study/1",
        "profile": "full",
        "seeds": list(numbers),
        "tasks": list(TASKS),
        "arms": list(arms),
        "methods": list(methods),
        "trials": 8,
        "versions": {"rlmerge": "0.1.0", "torch": "2.13.0"},
        "command": "rlmerge lab run -o lab --profile full",
        "cpu_hours": 2.25,
        "cpu_seconds": {"training": 5400.0, "study": 2700.0},
        "parameters": 607104,
        "method_details": {"sar_merging": {"status": "reconstruction", "main": {"name": "density"}, "scale": "lambda"}},
        "skipped": [{"method": "slerp", "experts": 5, "reason": "takes at most 2 experts, not 5"}],
        "bases": [{"seed": seed, "test": dict.fromkeys(TASKS, 0.3 + DRIFT[seed])} for seed in numbers],
        "experts": [_expert(seed, arm, task) for seed, arm in cells for task in TASKS],
        "geometry": [_pair(seed, arm) for seed, arm in cells],
        "merges": [
            _merge(seed, arm, method, rule, set_, gains)
            for seed, arm in cells
            for method in methods
            for rule in ("default", "tuned", "matched")
            for set_ in ("all", "make+steps")
        ],
        "sweep": [
            {"seed": seed, "arm": arm, "lambda": lam, "norm": 0.03 * lam, "gain_kept": 0.8 * lam + DRIFT[seed]}
            for seed, arm in cells
            for lam in (0.25, 0.5, 1.0)
        ],
        "landscape": [_picture(0, arm) for arm in ("rl", "sft") if arm in arms and seeds],
        "health": [
            _health(seed, arm, model)
            for seed in numbers
            for arm in ("rl", "sft")
            if arm in arms
            for model in ("base", "expert:make", "expert:steps", "merge:linear", "merge:scf_rkl")
        ],
    }
    return rows | changes


def second_edition(seeds=5, *, gains=None, off=None, arms=("rl",), **changes):
    """A study of the subspace family with a real vocabulary, held tasks, merges taken apart by layer, and students.

    ``off`` maps (method, rule) to the change on held tasks; the rest lose 0.02. In merges taken apart a layer alone
    adds a tenth of what the method is better than task arithmetic, all but layer 0 nine tenths. Students start at 0.4
    (from the base) or 0.5, and gain 0.1 by 1000 tokens and 0.2 by 2000.
    """
    off = off or {}
    rows = study(seeds, gains=gains, arms=arms, methods=FAMILY, vocabulary=2048, held=["held"])
    tuned = {}
    for row in rows["merges"]:
        key = row["method"], row["rule"]
        row["off_task"] = off.get(key, lambda seed: -0.02)(row["seed"]) + DRIFT[row["seed"]] / 10
        row["off_retention"] = 1 + row["off_task"]
        if row["set"] == "all" and row["rule"] == "tuned" and row["arm"] == "rl":
            tuned[row["seed"], row["method"]] = row["gain_kept"]
    for row in rows["experts"]:
        row["off_task"] = -0.01 + DRIFT[row["seed"]] / 10
    rows["ablation"] = [
        {"seed": seed, "arm": "rl", "set": "all", "method": method, "part": part, "layer": layer, "off_task": -0.02,
         "gain_kept": plain + share * (gain - plain)}
        for (seed, method), gain in tuned.items()
        if method in ("regmean", "regmean:sum", "tsv", "actmat", "covariance")
        for plain in (tuned[seed, "task_arithmetic"],)
        for part, layer, share in PARTS
    ]  # fmt: skip
    rows["students"] = [
        {"seed": seed, "arm": arm, "test": dict.fromkeys(TASKS, start + 0.2), "off_task": -0.03,
         "curve": [[1000 * k, dict.fromkeys(TASKS, start + 0.1 * k)] for k in range(3)]}
        for seed in range(seeds)
        for arm, start in (("distil", 0.4), ("distil-ta", 0.45), ("distil-own", 0.5))
    ]  # fmt: skip
    return rows | changes


def _expert(seed, arm, task):
    unchanged = {"rl": 0.40, "rl-bf16": 0.75, "sft": 0.35}.get(arm, 0.20)
    return {
        "seed": seed,
        "arm": arm,
        "task": task,
        "norm": {"rl": 0.020, "sft": 0.025}.get(arm, 0.05) + DRIFT[seed] / 100,
        "unchanged": unchanged + DRIFT[seed],
        "steps": 120,
        "test": {name: (0.7 if name == task else 0.28) + DRIFT[seed] for name in TASKS},
        "greedy": dict.fromkeys(TASKS, 0.5),
    }


def _pair(seed, arm):
    return {
        "seed": seed,
        "arm": arm,
        "a": "make",
        "b": "steps",
        "cosine": 0.02 + DRIFT[seed] / 10,
        "cosine_null_sd": 0.001,
        "jaccard": 0.6,
        "jaccard_chance": 0.4,
        "sign_conflict": 0.48,
        "conflict_norm": {"rl": 1e-4, "sft": 2e-4}.get(arm, 4e-4) * (1 + DRIFT[seed]),
        "conflict_share": 0.45 + DRIFT[seed],
    }


def _merge(seed, arm, method, rule, set_, gains):
    gain = gains.get((arm, method, rule), lambda seed: 0.5)(seed) + DRIFT[seed]
    return {
        "seed": seed,
        "arm": arm,
        "set": set_,
        "method": method,
        "rule": rule,
        "parameters": {},
        "trials": 8,
        "dev": gain,
        "test": dict.fromkeys(TASKS, 0.3 + DRIFT[seed] + 0.4 * gain),
        "gain_kept": gain,
        "retention": 0.5 + gain / 2,
        "degradation": gain / 2 - 0.5,
        "norm": 0.015,
        "survival": 0.8,
        "erased": 0.2,
    }


def _picture(seed, arm):
    steps = [-0.5, 0.0, 0.5, 1.0]
    score = [[0.7 - 0.2 * a * a - 0.1 * b * b for b in steps] for a in steps]
    names = {"task": "make", "center": "expert make", "direction": "steps"}
    loss = [[1 - value for value in row] for row in score]
    return {"seed": seed, "arm": arm, **names, "alphas": steps, "betas": steps, "score": score, "loss": loss}


def _health(seed, arm, model):
    repetition = {"base": 0.0, "merge:linear": 0.06, "merge:scf_rkl": 0.02}.get(model, 0.01)
    return {
        "seed": seed,
        "arm": arm,
        "model": model,
        "length_cap_repetition": repetition + DRIFT[seed] / 10 + 0.01,
        "seq_rep_4": 2 * repetition,
        "stop_rate": 1 - repetition,
        "length": {"mean": 6.0, "p10": 4.0, "p50": 6.0, "p90": 9.0, "max": 16.0},
        "entropy": 0.4,
    }
