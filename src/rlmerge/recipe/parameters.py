"""Reads `parameters:` against what the method takes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from rlmerge.errors import did_you_mean
from rlmerge.methods.method import Method, Parameter
from rlmerge.recipe.problems import Problems, as_switch
from rlmerge.recipe.setting import Setting, Value, read_setting
from rlmerge.recipe.tree import Node
from rlmerge.recipe.vocabulary import PLACES, is_seed, names_mergekit
from rlmerge.recipe.words import near_miss

Settings = Mapping[str, Setting]

_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


def default_value(method: Method, parameter: Parameter, compat: bool) -> float | bool | str | None:
    """What a parameter is when the recipe does not say: the method's default, or mergekit's under ``compat``."""
    return method.compat.get(parameter.name, parameter.default) if compat else parameter.default


def value_in_force(method: Method, parameter: Parameter, compat: bool, levels: tuple[Settings, ...]) -> Setting | None:
    """The setting of a parameter at several levels, the innermost first, tensor by tensor, down to the default."""
    found: Setting | None = None
    for settings in levels:
        if (setting := settings.get(parameter.name)) is not None:
            found = found.otherwise(setting) if found else setting
    default = default_value(method, parameter, compat)
    if default is None:
        return found
    return found.otherwise(Setting.constant(default)) if found else Setting.constant(default)


def read_settings(node: Node | None, method: Method, problems: Problems) -> Settings:
    """The settings of one ``parameters:`` mapping above the models, every value checked; reports what means nothing."""
    settings: dict[str, Setting] = {}
    for name, entry in _entries(node, problems):
        if name not in method.names:
            _foreign(name, entry, method, problems)
        elif setting := read_parameter(entry, method, method.parameter(name), problems):
            settings[name] = setting
    return settings


def read_own_settings(
    node: Node | None, method: Method, in_force: Callable[[Parameter], Setting | None], problems: Problems
) -> Settings:
    """The settings beside one model. One that holds for all models may be repeated there, but not changed.

    ``in_force`` gives the setting of a parameter for all models.
    """
    settings: dict[str, Setting] = {}
    for name, entry in _entries(node, problems):
        if name not in method.names:
            _foreign(name, entry, method, problems)
            continue
        parameter = method.parameter(name)
        setting = read_parameter(entry, method, parameter, problems)
        if setting is None:
            continue
        if parameter.per == "expert" and not parameter.is_static:
            settings[name] = setting
        elif problems.lenient or setting == in_force(parameter):
            what = f"'{name}' of method '{method.name}' has one value for all models: ignored here, as in mergekit"
            problems.warn(entry.where, what)
        else:
            hint = "Move it to `parameters:` of the recipe, a module or a slice."
            problems.add(entry.where, f"'{name}' of method '{method.name}' has one value for all models", hint)
    return settings


def _entries(node: Node | None, problems: Problems) -> list[tuple[str, Node]]:
    if node is None or node.value is None:
        return []
    if not isinstance(node.value, dict):
        problems.add(node.where, "`parameters` must be a mapping of names to values")
        return []
    return list(node.value.items())


def read_parameter(node: Node, method: Method, parameter: Parameter, problems: Problems) -> Setting | None:
    """The setting of one parameter; None after reporting every value it cannot take."""
    default = default_value(method, parameter, problems.lenient)

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
    switch = as_switch(value)
    if parameter.choices:
        if value in parameter.choices or switch is None or "none" not in parameter.choices:
            return str(value) if isinstance(value, bool) else value
        others = [choice for choice in parameter.choices if choice != "none"]
        return (str(default) if default in others else others[0]) if switch else "none"
    if isinstance(parameter.default, bool):
        return value if switch is None else switch
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**1023 else math.inf
    return value


def _foreign(name: str, node: Node, method: Method, problems: Problems) -> None:
    """A name that is no parameter of the method: an error where something else was meant, else a warning."""
    if name.startswith("x-") or problems.has_enough_of(node.where) or problems.is_half_a_number(name, node):
        return
    if node.value is None:
        problems.add(node.where, f"'{name}' has no value", "Give it one, or remove it.")
        return
    if is_seed(name):
        problems.warn(node.where, f"'{name}' has no effect in a recipe; give --seed on the command line")
        return
    if name in ("dtype", "out_dtype"):
        what = f"`{name}` has NO EFFECT among the parameters, as in mergekit: write it at the top level of the recipe"
        problems.warn(node.where, what)
        return
    hint = did_you_mean(name, method.names) if problems.strict and not names_mergekit(name) else None
    if name in method.inputs:
        hint = f"Write `{name}:` beside each `model:`."
    elif name in PLACES:
        hint = f"`{name}` goes {PLACES[name]}."
    elif not names_mergekit(name) and (meant := near_miss(name, method.names)):
        hint = f"Did you mean '{meant}'?"
    if hint is None or (problems.lenient and name not in method.inputs):
        problems.warn(node.where, f"'{name}' has no effect on {method.name}: ignored, as in mergekit")
    elif name in method.inputs:
        problems.add(node.where, f"'{name}' is not a parameter but a directory", hint)
    else:
        problems.add(node.where, f"method '{method.name}' has no parameter '{name}'", hint)
