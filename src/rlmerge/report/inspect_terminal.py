"""An inspection on one screen. Plain data in, text out: the same keys as its JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlmerge.report.console import MARKS, render, table
from rlmerge.report.terminal import size_text
from rlmerge.text import displayed

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

Result = Mapping[str, Any]

PAIRS_SHOWN = 10


def inspect_text(result: Result, *, width: int, color: bool) -> str:
    """Verdict first, then experts, pairs and forecasts, and the recipe to start from."""
    from rich.text import Text

    result = displayed(result)
    parts: list[RenderableType] = [Text(_headline(result), style="bold"), _findings(result["findings"]), ""]
    parts.append(_experts(result))
    if result["pairs"]:
        parts.append(_pairs(result["pairs"]))
    if result["forecasts"] or result["after"]:
        parts.append(_forecasts(result))
    if result["recommendation"]:
        parts += ["A recipe to start from:", Text(result["recommendation"]["yaml"].rstrip(), style="cyan")]
        parts += [Text(f"  {name}: {reason}") for name, reason in result["recommendation"]["reasons"].items()]
    return render(parts, width, color)


def _headline(result: Result) -> str:
    base, experts = result["base"], result["experts"]
    return (
        f"{len(experts)} expert{'s' if len(experts) > 1 else ''} of {base['name']}: {base['parameters']:,} weights in "
        f"{base['dtype']}, {size_text(result['bytes_read'])} read in {result['seconds']:.1f} s"
    )


def _findings(findings: Sequence[Result]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    lines: list[Text] = []
    for finding in findings:
        mark, style = MARKS[finding["level"]]
        line = Text.assemble((f"{mark} ", style), (finding["title"], "bold" if finding["level"] != "info" else ""))
        if finding["text"] and finding["level"] in ("problem", "warning"):
            line.append(f". {finding['text']}", style="dim")
        lines.append(line)
    return Group(*lines)


def _experts(result: Result) -> Table:
    """Per expert: size and sparsity; thresholds are in the headings."""
    dtype = result["base"]["dtype"]
    made = table(
        "expert", ">‖τ‖/‖θ₀‖", f">unchanged ({dtype})", ">|τ| ≤ 1e-5", ">top 1 % mass", ">Gini", ">own", ">chance"
    )
    for expert in result["experts"]:
        figures = {key: measure["value"] for key, measure in expert["figures"].items()}
        made.add_row(
            expert["model"]["name"],
            _number(figures["relative_norm"]),
            _share(figures["unchanged_bits"]),
            _share(figures["small_absolute"]),
            _share(figures.get("top1_mass")),
            _number(figures.get("gini")),
            _share(expert["shared_exactly"][0]),
            _share(expert["shared_by_chance"][0]),
        )
    return made


def _pairs(pairs: Sequence[Result]) -> Table:
    """Per pair, each figure beside what chance gives; the pairs with the most conflict when there are many."""
    made = table(
        "pair", ">Jaccard", ">chance", ">cosine", ">null ±", ">sign conflict", ">Σ|C⁻|/Σ|C|", ">chance", ">distance"
    )
    ordered = sorted(pairs, key=lambda p: -(p["figures"]["conflict_share"]["value"] or 0.0))
    for pair in ordered[:PAIRS_SHOWN]:
        figures = pair["figures"]
        made.add_row(
            f"{pair['a']} · {pair['b']}",
            _share(figures["jaccard"]["value"]),
            _share(figures["jaccard"].get("null")),
            _number(figures["cosine"]["value"]),
            _number(figures["cosine"].get("null_sd")),
            _share(figures["sign_conflict"]["value"]),
            _share(figures["conflict_share"]["value"]),
            "50.0 %",
            _number(figures["distance"]["value"]),
        )
    if len(pairs) > PAIRS_SHOWN:
        made.caption = f"the {PAIRS_SHOWN} pairs of {len(pairs)} with the largest conflict share"
    return made


def _forecasts(result: Result) -> Table:
    """What each method leaves: all experts together, and of every expert's own changes."""
    names = [expert["model"]["name"] for expert in result["experts"]]
    shown = names[:4]
    made = table("method", ">changes that survive", *(f">kept of {name}'s own" for name in shown))
    after = [result["after"]] if result["after"] else []
    for forecast in [*after, *result["forecasts"]]:
        by_name = {outcome["expert"]: outcome for outcome in forecast["experts"]}
        made.add_row(
            forecast["label"], _share(forecast["survived"]), *(_number(by_name[name]["realised"]) for name in shown)
        )
    forecasts = [*result["forecasts"], *after]
    sampled = min(forecast["sampled"] for forecast in forecasts)
    how = "exact" if sampled == 1 else f"from {sampled:.1%} of the weights, evenly spread"
    made.caption = f"rounded to {forecasts[-1]['dtype']}; {how}"
    return made


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
