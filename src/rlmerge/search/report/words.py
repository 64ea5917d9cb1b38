"""What a search found, in sentences that terminal and page share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlmerge.frozen import frozen
from rlmerge.report.tables import amount

Result = Mapping[str, Any]


@frozen(slots=True)
class Verdict:
    """One statement; ``level`` is good, info, warning or problem."""

    level: str
    title: str
    text: str


def headline(result: Result) -> str:
    """The first line."""
    counts = states(result)
    searched = f"{len(result['trials'])} candidates ({counts})"
    better = [pair["against"] for pair in first_comparisons(result) if pair["verdict"] == "better"]
    rivals = [pair["against"] for pair in first_comparisons(result) if role(result, pair["against"]) != "base"]
    if winner(result) is None:
        names = " and ".join(objective["name"] for objective in result["objectives"])
        return f"Best of {searched} by {names}; nothing was scored"
    if not result["comparisons"]:
        return f"Best of {searched} on the items it was chosen by; not confirmed"
    if result["best"] is None:
        return f"No recipe of {searched} was found to be better than {winner(result)['name']}"
    beaten = [name for name in rivals if name in better]
    left = [name for name in rivals if name not in better]
    if not left:
        return f"Best of {searched}, better on test than {' and '.join(beaten)}"
    return f"No recipe of {searched} was shown to be better on test than {' or '.join(left)}"


def verdicts(result: Result) -> list[Verdict]:
    """What test items say of the winner, and what its choice cost in honesty."""
    found = [_comparison(result, pair) for pair in result["comparisons"]]
    best = winner(result)
    if best is not None and best["test"] is not None:
        found.append(_choice(result, best))
    return found


def _choice(result: Result, best: Result) -> Verdict:
    """The winner's score where it was chosen beside that on test."""
    dev, test = fixed(best["dev"]), ends(best["test"])
    if by_proxy(result):
        text = "The winner is the best by a proxy, which saw none of these scores."
        return Verdict("info", f"{dev} on the items of the search, {test} on test", text)
    gap = best["dev"] - best["test"]["value"]
    scored = f"The best of {len(result['trials']) + len(result['baseline'])} scored recipes"
    here = (
        f"looks better than it is where it was chosen: by {fixed(gap)} here"
        if gap > 0
        else f"tends to look better than it is where it was chosen, although test is {fixed(-gap)} higher here"
    )
    text = f"{scored} {here}. Trust the test score alone."
    return Verdict("info", f"{dev} on the items it was chosen by, {test} on test", text)


def by_proxy(result: Result) -> bool:
    """Whether nothing but proxies chose the winner."""
    return all(is_proxy(objective["name"]) for objective in result["objectives"])


def is_proxy(objective: str) -> bool:
    """Whether an objective, by its name such as ``proxy:kl + 0.5 proxy:survival``, adds up proxies."""
    return all(term.split(" ")[-1].startswith("proxy:") for term in objective.split(" + "))


def _comparison(result: Result, pair: Result) -> Verdict:
    level = {"better": "good", "worse": "problem", "undecided": "warning"}[pair["verdict"]]
    kind = {"task arithmetic": "tuned task arithmetic", "expert": "the best single expert", "base": "the base"}
    other = f"{kind[role(result, pair['against'])]} ({pair['against']})"
    name = winner(result)["name"]
    words = {"better": "is better than", "worse": "is worse than", "undecided": "is not shown to be better than"}
    difference = pair["difference"]
    text = f"{pair['objective']} differs by {ends(difference)}, 95 % interval over the same test items."
    return Verdict(level, f"{name} {words[pair['verdict']]} {other}", text)


def first_comparisons(result: Result) -> list[Result]:
    """The comparisons by the first objective."""
    found = result["comparisons"]
    return [pair for pair in found if pair["objective"] == found[0]["objective"]]


def role(result: Result, name: str) -> str:
    """What a finalist is."""
    return next(each["role"] for each in result["finalists"] if each["name"] == name)


def winner(result: Result) -> Any:
    """The winning finalist, None where nothing was scored."""
    return next((each for each in result["finalists"] if each["role"] == "winner"), None)


def states(result: Result) -> str:
    """``20 complete, 10 stopped early, 2 failed``."""
    words = {"complete": "complete", "pruned": "stopped early", "fail": "failed"}
    counts = {state: sum(trial["state"] == state for trial in result["trials"]) for state in words}
    return ", ".join(f"{count} {words[state]}" for state, count in counts.items() if count)


def history(result: Result) -> list[tuple[int, float, float]]:
    """(number, first objective, best so far) of every complete trial."""
    found: list[tuple[int, float, float]] = []
    for trial in result["trials"]:
        if trial["state"] == "complete":
            value = trial["values"][0]
            found.append((trial["number"], value, max(value, found[-1][2] if found else value)))
    return found


def spread(result: Result, name: str, share: float = 0.25) -> tuple[Any, Any, Any]:
    """A number of the best trial, and the lowest and highest among the best ``share`` of the complete ones.

    None where the best trial has no such number: another method was best.
    """
    done = [trial for trial in result["trials"] if trial["state"] == "complete"]
    done.sort(key=lambda trial: -trial["values"][0])
    best = next((trial for trial in done if trial["number"] == result["best"]), done[0] if done else None)
    if best is None or name not in best["parameters"]:
        return None, None, None
    having = [trial["parameters"][name] for trial in done if name in trial["parameters"]]
    top = having[: max(2, round(share * len(having)))]
    return best["parameters"][name], min(top), max(top)


def coefficient_rows(result: Result) -> list[tuple[Result, Any, Any, Any]]:
    """Every free number with its best value and where the best quarter lies."""
    rows = [(d, *spread(result, d["name"])) for d in result["dimensions"] if "low" in d and d["low"] < d["high"]]
    return [row for row in rows if row[1] is not None]


def fixed(value: float | None, digits: int = 3) -> str:
    """A figure with three decimals and a true minus; a dash for none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def ends(interval: Result) -> str:
    """``0.512 [0.48, 0.54]``."""
    if interval["low"] is None or interval["high"] is None:
        return fixed(interval["value"])
    return f"{fixed(interval['value'])} [{fixed(interval['low'])}, {fixed(interval['high'])}]"


def told(value: object) -> str:
    """A value of a parameter."""
    return amount(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def failed(result: Result) -> Sequence[Result]:
    """Trials without an objective."""
    return [trial for trial in result["trials"] if trial["state"] == "fail"]
