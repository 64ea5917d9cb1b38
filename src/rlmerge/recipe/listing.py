"""Reads which models take part: `models`, `slices`, or `modules` of either."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace

from rlmerge.frozen import frozen
from rlmerge.methods.method import Method
from rlmerge.recipe.layout import Module, Range, Slice
from rlmerge.recipe.parameters import Settings, read_settings
from rlmerge.recipe.partition import Base, Entry, Scope, make_slice
from rlmerge.recipe.problems import Problems, as_whole
from rlmerge.recipe.reference import ModelRef, read_model
from rlmerge.recipe.tree import Node
from rlmerge.recipe.vocabulary import MODULE_KEYS, SLICE_KEYS

MAX_LAYERS = 100_000
"""Largest layer number: no model comes near it, and nobody should have to count to a billion to find out."""

MAX_MODELS = 1000
"""Most models of one list, and modules of one recipe."""

_FORMS = ("models", "slices", "modules")


@frozen(slots=True)
class Listing:
    """Reads the models of a recipe into modules.

    ``method`` is None where it is unknown: then only the form is checked, and there are no modules. ``averages`` says
    that a method without a base averages in one that the recipe names but does not list. ``lookup`` finds the methods
    of modules that have their own.
    """

    method: Method | None
    base: Base | None
    parameters: Settings
    problems: Problems
    averages: bool = True
    lookup: Callable[[Node], Method | None] = lambda node: None
    identities: dict[ModelRef, str] = field(default_factory=dict[ModelRef, str])

    def read(self, top: Mapping[str, Node], root: Node) -> tuple[Module, ...]:
        """The modules of a recipe; reports none, and several ways at once."""
        form = self._form(top, root, _FORMS, "the recipe")
        if form != "modules":
            module = self._module(None, top, root, form, {})
            return (module,) if module else ()
        node = top["modules"]
        if not isinstance(node.value, dict) or not node.value:
            what = "`modules` must be a mapping of module names to their `models` or `slices`"
            self.problems.add(node.where, what)
            return ()
        if len(node.value) > MAX_MODELS:
            self.problems.add(node.where, f"a recipe has more than {MAX_MODELS} modules", "Is this file a recipe?")
            return ()
        found = [self._named(name, entry) for name, entry in node.value.items()]
        return tuple(module for module in found if module)

    def _named(self, name: str, node: Node) -> Module | None:
        fields = self.problems.fields(node, MODULE_KEYS, f"module '{name}'", self._names)
        fields = {key: entry for key, entry in fields.items() if entry.value is not None}
        if not isinstance(node.value, dict):
            return None
        form = self._form(fields, node, _FORMS[:2], f"module '{name}'")
        method = self.lookup(fields["merge_method"]) if "merge_method" in fields else self.method
        if method is self.method:
            return self._module(name, fields, node, form, self._own(fields))
        inner = replace(self, method=method, parameters={})
        found = inner._module(name, fields, node, form, inner._own(fields))
        return replace(found, method=method) if found else None

    def _own(self, fields: Mapping[str, Node]) -> Settings:
        return read_settings(fields.get("parameters"), self.method, self.problems) if self.method else {}

    def _form(self, fields: Mapping[str, Node], node: Node, forms: Sequence[str], owner: str) -> str | None:
        """Which of the forms is used; None after reporting none or several."""
        used = [name for name in forms if name in fields]
        if len(used) > 1:
            what = f"{owner} lists its models once: `{used[0]}` or `{used[1]}`, not both"
            self.problems.add(fields[used[1]].where, what)
        elif not used:
            self.problems.add(node.where, f"{owner} lists no models", "Add `models:` with one `- model:` per expert.")
        return used[0] if len(used) == 1 else None

    def _module(
        self, name: str | None, fields: Mapping[str, Node], node: Node, form: str | None, own: Settings
    ) -> Module | None:
        """A module of either form; None where there is nothing to make it of, which is reported."""
        slices: list[Slice] = []
        if form == "models":
            entries = self._entries(fields["models"], "models", ())
            if self.method and entries:
                scope = Scope(self.method, self.base, ({}, own, self.parameters), True, self.averages, name is not None)
                slices.append(make_slice(entries, scope, node, self.problems))
        elif form == "slices":
            slices = self._slices(fields["slices"], own)
        return Module(name, tuple(slices), own, node.line) if slices else None

    def _slices(self, node: Node, own: Settings) -> list[Slice]:
        if not node.items:
            self.problems.add(node.where, "`slices` must be a list with one entry or more")
        found = [self._slice(item, len(node.items) == 1, own) for item in node.items]
        return [each for each in found if each]

    def _slice(self, node: Node, alone: bool, own: Settings) -> Slice | None:
        fields = self.problems.fields(node, SLICE_KEYS, "a slice", self._names)
        fields = {name: entry for name, entry in fields.items() if entry.value is not None}
        if "residual_weight" in fields:
            what = "`residual_weight` has no effect: ignored, as in mergekit"
            self.problems.warn(fields["residual_weight"].where, what)
        if "sources" not in fields:
            if isinstance(node.value, dict):
                self.problems.add(node.where, "a slice needs `sources`")
            return None
        base = read_base(fields["base_model"], self.problems) if "base_model" in fields else self.base
        entries = self._entries(fields["sources"], "sources", ("layer_range",))
        ranged = [entry for entry in entries if entry.layer_range]
        complete = self._ranges(entries, ranged, alone, fields["sources"])
        if self.method is None or not entries:
            return None
        parameters = read_settings(fields.get("parameters"), self.method, self.problems)
        if not complete:
            return None
        levels = (parameters, own, self.parameters)
        scope = Scope(self.method, base, levels, appends=not ranged, averages=False, copies=True)
        return make_slice(entries, scope, node, self.problems)

    def _ranges(self, entries: Sequence[Entry], ranged: Sequence[Entry], alone: bool, node: Node) -> bool:
        """Whether the sources take equally many layers, or all take all of them; reports what is wrong with them."""
        before = len(self.problems)
        written = [entry.node.fields.get("layer_range") for entry in entries]
        if any(each is not None for each in written) or not alone:
            for entry, each in zip(entries, written, strict=True):
                if each is None:
                    what = f"source '{entry.model}' of a slice needs its `layer_range`, like [0, 32]"
                    self.problems.add(entry.node.where, what)
        lengths = {stop - start: entry for entry in ranged for start, stop in [entry.layer_range or (0, 0)]}
        if len(lengths) > 1:
            counts = ", ".join(f"{length} of '{entry.model}'" for length, entry in list(lengths.items())[:5])
            self.problems.add(node.where, f"all sources of a slice must take equally many layers, not {counts}")
        return len(self.problems) == before and len(ranged) in (0, len(entries))

    def _entries(self, node: Node, owner: str, extra: tuple[str, ...]) -> tuple[Entry, ...]:
        if not isinstance(node.value, list):
            self.problems.add(node.where, f"`{owner}` must be a list of `- model:` entries")
            return ()
        if not node.value:
            self.problems.add(node.where, f"`{owner}` lists no model", "Add one `- model:` entry per expert.")
        if len(node.value) > MAX_MODELS:
            self.problems.add(node.where, f"`{owner}` lists more than {MAX_MODELS} models", "Is this file a recipe?")
            return ()
        found = [self._entry(item, owner, extra) for item in node.value]
        return tuple(entry for entry in found if entry)

    def _entry(self, node: Node, owner: str, extra: tuple[str, ...]) -> Entry | None:
        if node.is_scalar and node.text:
            node = Node({"model": node}, node.where, node.line)
        names = self.method.inputs if self.method else ()
        fields = self.problems.fields(node, ("model", *names, *extra, "parameters"), f"a `{owner}` entry", self._names)
        if "model" not in fields:
            if isinstance(node.value, dict):
                self.problems.add(node.where, f"a `{owner}` entry needs a `model`")
            return None
        model = read_model(fields["model"], self.problems) or UNREADABLE
        identity = self.identities.get(model) or self.identities.setdefault(model, model.identity)
        inputs = {name: self.problems.text(fields[name], f"`{name}`") for name in names if name in fields}
        bounds = self._range(fields["layer_range"]) if "layer_range" in fields else None
        given = {name: text for name, text in inputs.items() if text}
        return Entry(model, identity, node, bounds, given)

    def _range(self, node: Node) -> Range | None:
        """The bounds of ``[a, b]``; reports everything else."""
        bounds = [as_whole(item) for item in node.items]
        if len(bounds) != 2 or bounds[0] is None or bounds[1] is None:
            self.problems.add(node.where, "`layer_range` must be two layer numbers, like [0, 32]")
            return None
        start, stop = bounds[0], bounds[1]
        if start < 0 or stop < 0:
            self.problems.add(node.where, f"layers are counted from 0: [{start}, {stop}] starts or ends below")
        elif stop < start:
            self.problems.add(node.where, f"`layer_range` [{start}, {stop}] ends before it starts")
        elif stop > MAX_LAYERS:
            self.problems.add(node.where, f"no model has {stop} layers")
        else:
            return start, stop
        return None

    @property
    def _names(self) -> tuple[str, ...]:
        return self.method.names if self.method else ()


def read_base(node: Node, problems: Problems) -> Base:
    """The base named at ``node``."""
    model = read_model(node, problems) or UNREADABLE
    return Base(model, model.identity, node)


UNREADABLE = ModelRef("?")
"""Stands for a model whose name was reported as wrong, so that nobody is told that it is missing as well."""
