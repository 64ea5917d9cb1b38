"""The model card of a merge: what a reader of the Hub page needs, and nothing that changes from run to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from rlmerge.text import code, fenced, plain, prose


def model_card(
    result: Mapping[str, Any],
    *,
    models: Sequence[str],
    paper: str,
    recipe: str,
    license: str | None,
    version: str,
) -> str:
    """README.md of a merged model.

    ``result`` is ``MergeResult.to_dict()``; ``models`` names base and experts as Hub ids or directory names, base
    first; ``recipe`` is canonical YAML. Names and warnings may hold anything: in the card they are text and nothing
    else, of whatever they consist.
    """
    matter: dict[str, Any] = {
        "base_model": list(dict.fromkeys(map(plain, models))),
        "base_model_relation": "merge",
        "library_name": "transformers",
        "tags": ["merge", "rlmerge", *plain(result["method"]).split(", ")],
    }
    if license is not None:
        matter["license"] = plain(license)
    parts = [
        f"---\n{yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)}---",
        "# Merged model",
        f"Made with rlmerge {version} by the method {code(result['method'])} ({paper}; status: {result['status']}).",
    ]
    if license is None:
        parts.append("The license is not stated here because not every source model states one; check them.")
    if result["experts"]:
        parts.append(_survival(result))
    if result.get("routers"):
        parts.append(_routers(result["routers"]))
    if result["details"]:
        parts.append(_details(result))
    if result["warnings"]:
        parts.append("## Warnings\n\n" + "\n".join(f"- {prose(warning)}" for warning in result["warnings"]))
    parts.append(f"## Recipe\n\n{fenced(recipe.strip(), 'yaml')}")
    parts.append(
        "`rlmerge verify` checks this directory against `MANIFEST.json`; `rlmerge.lock.yaml` holds what is needed to "
        "rebuild it."
    )
    return "\n\n".join(parts) + "\n"


def _survival(result: Mapping[str, Any]) -> str:
    lines = [
        "## What survived",
        "",
        f"{_share(result['survived'], result['changed'])} of the coordinates that any expert changed differ from the "
        "base after rounding.",
        "",
        "| expert | changed | survived | erased by rounding | requested coefficient | realised |",
        "|---|---|---|---|---|---|",
    ]
    for expert in result["experts"]:
        lines.append(
            f"| {prose(_short(expert['name']))} | {expert['changed']:,} "
            f"| {_share(expert['survived'], expert['changed'])} "
            f"| {_share(expert['erased'], expert['changed'])} "
            f"| {_number(expert['requested'])} | {_number(expert['realised'])} |"
        )
    return "\n".join(lines)


def _routers(routers: Mapping[str, Any]) -> str:
    """Moves and distances are shares of the norm of the base's routers."""
    lines = [
        "## The routers",
        "",
        f"{routers['tensors']} tensors, which the merge moved by {_percent(routers['moved'])} of their norm.",
        "",
        "| expert | moved by training | changed | survived | requested coefficient | realised | away from output |",
        "|---|---|---|---|---|---|---|",
    ]
    for expert in routers["experts"]:
        lines.append(
            f"| {prose(_short(expert['name']))} | {_percent(expert['moved'])} | {expert['changed']:,} "
            f"| {_share(expert['survived'], expert['changed'])} "
            f"| {_number(expert['requested'])} | {_number(expert['realised'])} | {_percent(expert['distance'])} |"
        )
    return "\n".join(lines)


def _details(result: Mapping[str, Any]) -> str:
    lines = ["## What the method did", "", "| measured | whole model | tensors |", "|---|---|---|"]
    for detail in result["details"]:
        label = detail["label"]
        for expert in result["experts"]:
            label = label.replace(expert["name"], _short(expert["name"]))
        span = "–" if detail["range"] is None else "{:.4g} to {:.4g}".format(*detail["range"])
        value = "–" if detail["value"] is None else f"{detail['value']:.4g}"
        lines.append(f"| {prose(label)} | {value} | {span} |")
    return "\n".join(lines)


def _short(name: str) -> str:
    """A model's name without what is above it: paths mean nothing to readers of a card."""
    return name.rstrip("/").rsplit("/", 1)[-1]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.3g} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
