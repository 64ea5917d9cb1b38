"""Reads `parameters:` against what the method takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from rlmerge.errors import did_you_mean
from rlmerge.methods.method import Method, Parameter
from rlmerge.recipe.problems import Problems
from rlmerge.recipe.setting import Setting, Value, read_setting
from rlmerge.recipe.tree import Node

Level = Literal["recipe", "model"]
Settings = dict[str, Setting]


def default_value(method: Method, parameter: Parameter, compat: bool) -> float | bool | str | None:
    """What a parameter is when the recipe does not say: the method's default, or mergekit's under ``compat``."""
    return method.compat.get(parameter.name, parameter.default) if compat else parameter.default


def read_settings(node: Node | None, method: Method, compat: bool, level: Level, problems: Problems) -> Settings:
    """The settings of one `parameters:` mapping, every value checked; reports unknown and misplaced names."""
    if node is None or node.value is None:
        return {}
    if not isinstance(node.value, dict):
        problems.add(node.where, "`parameters` must be a mapping of names to values")
        return {}
    settings: Settings = {}
    for name, entry in node.value.items():
        if name not in method.names:
            _report_unknown(name, entry, method, problems)
            continue
        parameter = method.parameter(name)
        if level == "model" and (parameter.per == "tensor" or parameter.is_static):
            problems.add(
                entry.where,
                f"'{name}' of method '{method.name}' has one value for all models",
                "Move it to the recipe's top-level `parameters:`.",
            )
        elif setting := read_parameter(entry, method, parameter, compat, problems):
            settings[name] = setting
    return settings


def read_parameter(
    node: Node, method: Method, parameter: Parameter, compat: bool, problems: Problems
) -> Setting | None:
    """The setting of one parameter; None after reporting every value it cannot take."""
    default = default_value(method, parameter, compat)

    def scalar(item: Node) -> Value | None:
        value = _convert(item, parameter, default)
        problem = parameter.problem(value)
        if problem is None and isinstance(value, float) and not math.isfinite(value):
            problem = f"must be finite, not {value:g}"
        if problem:
            problems.add(item.where, f"'{parameter.name}' {problem}", parameter.help)
            return None
        return value

    setting = read_setting(node, scalar, problems)
    if setting and parameter.is_static and setting.only is None:
        problems.add(node.where, f"'{parameter.name}' cannot vary from tensor to tensor", "Give it one value.")
        return None
    return setting


def _convert(node: Node, parameter: Parameter, default: float | bool | str | None) -> Value | None:
    """The scalar in the parameter's own type where that is unambiguous; `problem` judges the rest."""
    value = node.value
    if isinstance(value, list | dict):
        return None
    if parameter.choices:
        if isinstance(value, bool) and "none" in parameter.choices:
            others = [choice for choice in parameter.choices if choice != "none"]
            on = str(default) if default in others else others[0]
            return on if value else "none"
        return node.text if node.text in parameter.choices else str(value) if isinstance(value, bool) else value
    if isinstance(parameter.default, bool):
        return bool(value) if value in (0, 1) and not isinstance(value, str) else value
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**1023 else math.inf
    return value


def _report_unknown(name: str, node: Node, method: Method, problems: Problems) -> None:
    if _changes_nothing(name, node, method):
        problems.warn(node.where, f"'{name}' has no effect on {method.name}: ignored, as in mergekit")
    elif name in method.inputs:
        problems.add(node.where, f"'{name}' is no parameter but a directory", f"Write `{name}:` beside each `model:`.")
    elif method.names:
        problems.add(node.where, f"method '{method.name}' has no parameter '{name}'", did_you_mean(name, method.names))
    else:
        problems.add(node.where, f"method '{method.name}' has no parameters", f"Remove '{name}'.")


def _changes_nothing(name: str, node: Node, method: Method) -> bool:
    """True for what mergekit accepts and does not use, and for switching off what the method does not do."""
    unused = {"int8_mask", *(("density", "rescale") if method.name == "task_arithmetic" else ())}
    return name in unused or (name == "rescale" and node.value is False)


def report_missing(
    method: Method,
    shared: Mapping[str, Setting],
    own: Sequence[Mapping[str, Setting]],
    where: str,
    compat: bool,
    problems: Problems,
) -> None:
    """Report the parameters without a default that the recipe leaves open for some expert."""
    for parameter in method.parameters:
        if default_value(method, parameter, compat) is not None or parameter.name in shared:
            continue
        if not own or any(parameter.name not in settings for settings in own):
            problems.add(where, f"method '{method.name}' needs parameter '{parameter.name}'", parameter.help)
