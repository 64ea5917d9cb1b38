"""Groups of tensors that share a coefficient, and the rules of a recipe that give each group its value."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from rlmerge.checkpoint.module_kinds import kind_of
from rlmerge.errors import RequestError
from rlmerge.frozen import frozen
from rlmerge.recipe.layers import layer_count, layer_index
from rlmerge.recipe.setting import Rule, Setting

OUTSIDE = "outside the layers"
"""Embeddings, the last norm and the head."""

_DIGITS = 4
"""Significant digits of a coefficient in a recipe."""


@frozen
class Groups:
    """A label for each group, and the group of each tensor by its name."""

    labels: tuple[str, ...]
    group_of: Mapping[str, int]

    def setting(self, values: Sequence[float]) -> Setting:
        """The setting of a parameter that has ``values[g]`` on the tensors of group g, and on these alone decides."""
        rules = [Rule(pattern, (values[group],)) for pattern, group in self._patterns]
        while len(rules) > 1 and rules[-2].values == rules[-1].values:
            del rules[-2]  # the rule for all others says the same
        return Setting(tuple(rules))

    @cached_property
    def _patterns(self) -> list[tuple[str | None, int]]:
        """Parts of names and the group each decides, the first match counting; the last is for all names.

        A part of a name is as short as it may be: a layer's prefix where all of the layer is in one group, then a
        module's in it, then whole names, the longest first, as one may be part of another.
        """
        common = Counter(self.group_of.values()).most_common()
        outside = [group for name, group in self.group_of.items() if layer_index(name) is None]
        fallback = Counter(outside).most_common(1)[0][0] if outside else common[0][0]
        left = dict(self.group_of)
        found: list[tuple[str | None, int]] = []
        for depth in (0, 1):
            for prefix in dict.fromkeys(filter(None, (_prefix(name, depth) for name in left))):
                within = {group for name, group in left.items() if prefix in name}
                if len(within) == 1:
                    found.append((prefix, within.pop()))
                    left = {name: group for name, group in left.items() if prefix not in name}
        alone = sorted((name for name, group in left.items() if group != fallback), key=len, reverse=True)
        # A name that holds another's, which has a rule, needs one too.
        kept = [name for name, group in left.items() if group == fallback and any(other in name for other in alone)]
        ordered = sorted({*alone, *kept}, key=lambda name: (-len(name), name))
        return [*found, *((name, left[name]) for name in ordered), (None, fallback)]


def make_groups(tensors: Iterable[str], layer_groups: int, kinds: bool) -> Groups:
    """Groups of ``tensors``: runs of layers as equal as they can be, each cut by module type where ``kinds`` says so.

    Tensors outside the layers are a group, or one for each type. RequestError for a rule that cannot be written.
    """
    names = list(tensors)
    layers = layer_count(names)
    runs = min(layer_groups, layers)
    labels: dict[str, int] = {}
    group_of: dict[str, int] = {}
    for name in sorted(names, key=lambda name: (_run(name, runs, layers), names.index(name))):
        label = _label(_run(name, runs, layers), runs, layers)
        if kinds:
            kind = kind_of(name)
            label = f"{label}, {kind}" if runs and layer_index(name) is not None else kind
        group_of[name] = labels.setdefault(label, len(labels))
    found = Groups(tuple(labels), {name: group_of[name] for name in names})
    _check(found)
    return found


def rounded(value: float) -> float:
    """A coefficient as a recipe writes it."""
    return float(f"{value:.{_DIGITS}g}")


def _run(name: str, runs: int, layers: int) -> int:
    """Which run of layers a tensor is in; the last number is for those in none."""
    layer = layer_index(name)
    return runs if layer is None or not runs else layer * runs // layers


def _label(run: int, runs: int, layers: int) -> str:
    if not runs:
        return "all tensors"
    if run == runs:
        return OUTSIDE
    first, last = -(-run * layers // runs), -(-(run + 1) * layers // runs) - 1
    return f"layer {first}" if first == last else f"layers {first}–{last}"


def _prefix(name: str, depth: int) -> str | None:
    """``layers.3.`` of a name, with as many of the words after it as ``depth`` says; None where there is no layer."""
    found = re.search(r"(?:^|\.)((?:layers?|h|blocks?)\.[0-9]{1,6}\." + r"[^.]+\." * depth + ")", name)
    return found[1] if found else None


def _check(groups: Groups) -> None:
    """RequestError unless the rules give every tensor the value of its group: names of tensors may be anything."""
    setting = groups.setting([float(group) for group in range(len(groups.labels))])
    for name, group in groups.group_of.items():
        if setting.at(name, 0.0) != group:
            hint = "Take fewer groups: --layer-groups 0 and no --kinds has one for all."
            raise RequestError("no rule of a recipe sets it apart from the others", where=name, hint=hint)
