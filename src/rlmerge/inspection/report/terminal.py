"""An inspection on one screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlmerge.inspection.results import Finding, Group, Inspection, Pair, Sampling
from rlmerge.report.console import MARKS, render, size_text, table
from rlmerge.report.tables import number, share
from rlmerge.text import displayed

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

PAIRS_SHOWN = 10
EXPERTS_SHOWN = 4


def inspect_text(found: Inspection, *, width: int, color: bool) -> str:
    """Verdict first, then experts, pairs and forecasts, and the recipe to start from."""
    from rich.text import Text

    found = displayed(found)
    parts: list[RenderableType] = [Text(_headline(found), style="bold"), _findings(found.findings), "", _experts(found)]
    if found.sampling is not None:
        parts.append(_sampling(found.names, found.sampling))
    if found.pairs:
        parts.append(_pairs(found.pairs))
    if found.routers:
        parts.append(_routers(found.names, found.routers))
    if found.forecasts or found.after:
        parts.append(_forecasts(found))
    if found.recommendation:
        parts += ["A recipe to start from:", Text(found.recommendation.yaml.rstrip(), style="cyan")]
        parts += [Text(f"  {name}: {reason}") for name, reason in found.recommendation.reasons.items()]
    return render(parts, width, color)


def _headline(found: Inspection) -> str:
    base, count = found.base, len(found.experts)
    return (
        f"{count} expert{'s' if count > 1 else ''} of {base.name}: {base.parameters:,} weights in "
        f"{base.dtype}, {size_text(found.bytes_read)} read in {found.seconds:.1f} s"
    )


def _sampling(names: Sequence[str], sampling: Sampling) -> str:
    """How much was read, and the standard errors of the figures in the table of experts."""
    lines = [
        f"A sample: {100 * sampling.share:.3g} % of the weights, in {sampling.blocks:,} blocks; standard errors of "
        "‖τ‖/‖θ₀‖ and of the unchanged share:"
    ]
    for name, errors in zip(names, sampling.experts, strict=True):
        lines.append(f"  {name}: ± {number(errors.get('relative_norm'))}, ± {share(errors.get('unchanged_bits'))}")
    return "\n".join(lines)


def _findings(findings: Sequence[Finding]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    lines: list[Text] = []
    for finding in findings:
        mark, style = MARKS[finding.level]
        line = Text.assemble((f"{mark} ", style), (finding.title, "bold" if finding.level != "info" else ""))
        if finding.text and finding.level in ("problem", "warning"):
            line.append(f". {finding.text}", style="dim")
        lines.append(line)
    return Group(*lines)


def _experts(found: Inspection) -> Table:
    """Per expert: size and sparsity; thresholds are in the headings."""
    dtype = found.base.dtype
    made = table(
        "expert", ">‖τ‖/‖θ₀‖", f">unchanged ({dtype})", ">|τ| ≤ 1e-5", ">top 1 % mass", ">Gini", ">own", ">chance"
    )
    for expert in found.experts:
        figures = {key: measure.value for key, measure in expert.figures.items()}
        made.add_row(
            expert.model.name,
            number(figures["relative_norm"]),
            share(figures["unchanged_bits"]),
            share(figures["small_absolute"]),
            share(figures.get("top1_mass")),
            number(figures.get("gini")),
            share(expert.shared_exactly[0]),
            share(expert.shared_by_chance[0]),
        )
    return made


def _pairs(pairs: Sequence[Pair]) -> Table:
    """Per pair, each figure beside what chance gives; the pairs with the most conflict when there are many."""
    made = table(
        "pair", ">Jaccard", ">chance", ">cosine", ">null ±", ">sign conflict", ">Σ|C⁻|/Σ|C|", ">chance", ">distance"
    )
    conflict = {id(pair): pair.figures["conflict_share"].value for pair in pairs}
    # NaN, where a pair has no common change, goes last.
    ordered = sorted(pairs, key=lambda pair: -value if (value := conflict[id(pair)]) == value else 0.0)
    for pair in ordered[:PAIRS_SHOWN]:
        figures = pair.figures
        made.add_row(
            f"{pair.a} · {pair.b}",
            share(figures["jaccard"].value),
            share(figures["jaccard"].null),
            number(figures["cosine"].value),
            number(figures["cosine"].null_sd),
            share(figures["sign_conflict"].value),
            share(figures["conflict_share"].value),
            "50.0 %",
            number(figures["distance"].value),
        )
    if len(pairs) > PAIRS_SHOWN:
        made.caption = f"the {PAIRS_SHOWN} pairs of {len(pairs)} with the largest conflict share"
    return made


def _routers(names: Sequence[str], routers: Group) -> Table:
    """Per expert how far it moved the routers of a mixture of experts."""
    made = table(f"routers ({routers.tensors})", ">‖τ‖/‖θ₀‖", ">unchanged", ">share of ‖τ‖²")
    for k, name in enumerate(names):
        made.add_row(name, number(routers.relative_norm[k]), share(routers.unchanged[k]), share(routers.energy[k]))
    return made


def _forecasts(found: Inspection) -> Table:
    """What each method leaves: all experts together, and of every expert's own changes."""
    shown = found.names[:EXPERTS_SHOWN]
    routers = [">of routers"] if found.routers else []
    made = table("method", ">changes that survive", *routers, *(f">kept of {name}'s own" for name in shown))
    forecasts = [*([found.after] if found.after else []), *found.forecasts]
    for forecast in forecasts:
        kept = {outcome.expert: outcome.realised for outcome in forecast.experts}
        also = [share(forecast.routers)] if found.routers else []
        made.add_row(forecast.label, share(forecast.survived), *also, *(number(kept[name]) for name in shown))
    sampled = min(forecast.sampled for forecast in forecasts)
    how = "exact" if sampled == 1 else f"from {sampled:.1%} of the weights, evenly spread"
    made.caption = f"rounded to {forecasts[0].dtype}; {how}"
    return made
