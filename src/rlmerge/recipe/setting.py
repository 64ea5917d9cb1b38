"""The value of a parameter: a number, a gradient over the layers, or a list of these by tensor name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from rlmerge.frozen import frozen
from rlmerge.recipe.problems import Problems
from rlmerge.recipe.tree import Node

ROUTER = "router"
"""The filter that speaks of the routers of a mixture of experts, whatever models call them."""

Value = float | bool | str
ReadScalar = Callable[[Node], Value | None]


@frozen(slots=True)
class Rule:
    """``values`` for the tensors whose name contains ``pattern`` (None: every tensor).

    Where ``is_router`` they hold as well for the routers of mixtures of experts, whatever models call them.
    One value is a constant; several are a gradient, spread evenly from the first layer to the last.
    """

    pattern: str | None
    values: tuple[Value, ...]
    is_router: bool = False

    def matches(self, tensor: str, is_router: bool = False) -> bool:
        """Whether the rule speaks of the tensor of this name, which may be a router of any name."""
        return self.pattern is None or self.pattern in tensor or (self.is_router and is_router)

    def at(self, position: float) -> Value:
        """The value at ``position``: 0 is the first layer, 1 the last. Numbers are interpolated linearly."""
        scaled = position * (len(self.values) - 1)
        left = int(scaled)
        low = self.values[left]
        part = scaled - left
        if isinstance(low, bool | str) or not part:
            return low
        return (1 - part) * low + part * cast(float, self.values[left + 1])


@frozen(slots=True)
class Setting:
    """Rules in written order, of which the first that matches a tensor decides. A plain number is one rule for all."""

    rules: tuple[Rule, ...]

    @classmethod
    def constant(cls, value: Value) -> Setting:
        """The same value for every tensor."""
        return cls((Rule(None, (value,)),))

    def at(self, tensor: str, position: float, is_router: bool = False) -> Value | None:
        """The value for a tensor at a layer position in [0, 1]; None when no rule matches it."""
        for rule in self.rules:
            if rule.matches(tensor, is_router):
                return rule.at(position)
        return None

    def otherwise(self, fallback: Setting) -> Setting:
        """These rules, then, for tensors none of them matches, those of a setting of lower precedence."""
        return self if self.covers_all else Setting(self.rules + fallback.rules)

    @property
    def covers_all(self) -> bool:
        """True when some rule holds for every tensor."""
        return any(rule.pattern is None for rule in self.rules)

    @property
    def only(self) -> Value | None:
        """The value if it is the same for every tensor, else None."""
        first = self.rules[0]
        varies = len(self.rules) > 1 or first.pattern is not None or len(set(first.values)) > 1
        return None if varies else first.values[0]

    def plain(self) -> Any:
        """As YAML spells it: a scalar, a list, or a list of ``{filter, value}``."""
        spelled = [list(rule.values) if len(rule.values) > 1 else rule.at(0) for rule in self.rules]
        if len(spelled) == 1 and self.covers_all:
            return spelled[0]
        return [
            {"value": value} if rule.pattern is None else {"filter": rule.pattern, "value": value}
            for rule, value in zip(self.rules, spelled, strict=True)
        ]


def read_setting(node: Node, scalar: ReadScalar, problems: Problems) -> Setting | None:
    """The setting written at ``node``; None after reporting every problem with it. ``scalar`` reads one value."""
    before = len(problems)
    if node.items and all(isinstance(item.value, dict) for item in node.items):
        rules = tuple(_read_rule(item, scalar, problems) for item in node.items)
    elif "value" in node.fields:
        rules = (_read_rule(node, scalar, problems),)
    else:
        rules = (Rule(None, _read_values(node, scalar, problems)),)
    return Setting(rules) if len(problems) == before else None


def _read_rule(node: Node, scalar: ReadScalar, problems: Problems) -> Rule:
    fields = problems.fields(node, ("filter", "value"), "a filter")
    pattern = None
    if "filter" in fields and fields["filter"].value is not None:
        pattern = problems.text(fields["filter"], "a filter")
    if "value" not in fields:
        problems.add(node.where, "a filter needs a `value`")
        return Rule(None, ())
    is_router = pattern == ROUTER and not problems.lenient
    return Rule(None if pattern == "*" else pattern, _read_values(fields["value"], scalar, problems), is_router)


def _read_values(node: Node, scalar: ReadScalar, problems: Problems) -> tuple[Value, ...]:
    if isinstance(node.value, dict):
        problems.add(node.where, "a value must be a scalar, a list over the layers, or a list of {filter, value}")
    elif isinstance(node.value, list) and not node.value:
        problems.add(node.where, "a list of values must not be empty")
    elif any(not item.is_scalar for item in node.items):
        problems.add(node.where, "a list must hold either plain values (a gradient) or {filter, value} entries only")
    else:
        found = [scalar(item) for item in (node.items or [node])]
        return tuple(value for value in found if value is not None)
    return ()
