"""Reads `tokenizer` and `tokenizer_source`: the vocabulary of the output, and where rows of its tokens come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, replace
from typing import Literal

from rlmerge.frozen import frozen
from rlmerge.recipe.problems import Problems, as_switch
from rlmerge.recipe.reference import ModelRef, read_model
from rlmerge.recipe.tree import Node
from rlmerge.recipe.vocabulary import TOKENIZER_KEYS

MAX_PADDING = 2**20
"""Largest multiple to pad a vocabulary to."""

MAX_TOKEN_ID = 2**31 - 1

VocabularySource = ModelRef | Literal["union", "base"]


@frozen(slots=True)
class Zero:
    """A row of zeros."""


@frozen(slots=True)
class ModelToken:
    """The row that ``model`` has for another token, named by its text or by its row number (exactly one of them)."""

    model: ModelRef
    token: str | None = None
    token_id: int | None = None


@frozen(slots=True)
class TokenSpec:
    """Where models that lack a token take its row from; None: from the base, else the mean of those that have it.

    ``force`` gives this row to the models that have one of their own, too.
    """

    source: ModelRef | Zero | ModelToken | None = None
    force: bool = False

    @property
    def model(self) -> ModelRef | None:
        """The model whose row is taken."""
        return self.source.model if isinstance(self.source, ModelToken) else _model(self.source)

    def map_models(self, change: Callable[[ModelRef], ModelRef]) -> TokenSpec:
        """The same for another model."""
        if isinstance(self.source, ModelToken):
            return replace(self, source=replace(self.source, model=change(self.source.model)))
        return replace(self, source=change(self.source)) if isinstance(self.source, ModelRef) else self


@frozen(slots=True)
class TokenizerSpec:
    """The vocabulary of the output: the base's, a model's, or the union of all; and rows chosen for single tokens.

    ``pad_to_multiple_of`` rounds the number of embedding rows up.
    """

    source: VocabularySource = "union"
    tokens: Mapping[str, TokenSpec] = field(default_factory=dict[str, TokenSpec])
    pad_to_multiple_of: int | None = None

    @property
    def models(self) -> tuple[ModelRef, ...]:
        """The models it names."""
        found = [_model(self.source), *(spec.model for spec in self.tokens.values())]
        return tuple(model for model in found if model)

    def map_models(self, change: Callable[[ModelRef], ModelRef]) -> TokenizerSpec:
        """The same of other models."""
        source = change(self.source) if isinstance(self.source, ModelRef) else self.source
        return replace(self, source=source, tokens={t: spec.map_models(change) for t, spec in self.tokens.items()})


def _model(source: object) -> ModelRef | None:
    return source if isinstance(source, ModelRef) else None


def read_tokenizer(top: Mapping[str, Node], problems: Problems) -> TokenizerSpec | None:
    """The vocabulary a recipe asks for; None where it says nothing, and after reporting a problem."""
    if "tokenizer" not in top:
        return TokenizerSpec(_read_source(top["tokenizer_source"], problems)) if "tokenizer_source" in top else None
    if "tokenizer_source" in top:
        problems.add(top["tokenizer_source"].where, "give `tokenizer` or `tokenizer_source`, not both")
    fields = problems.fields(top["tokenizer"], TOKENIZER_KEYS, "`tokenizer`")
    fields = {name: node for name, node in fields.items() if node.value is not None}
    spec = TokenizerSpec(tokens=_read_tokens(fields.get("tokens"), problems))
    if "source" in fields:
        spec = replace(spec, source=_read_source(fields["source"], problems))
    if "pad_to_multiple_of" in fields:
        node = fields["pad_to_multiple_of"]
        # 0 pads nothing in mergekit
        multiple = problems.whole(node, "`pad_to_multiple_of`", 0, MAX_PADDING)
        spec = replace(spec, pad_to_multiple_of=multiple or None)
    return spec


def _read_source(node: Node, problems: Problems) -> VocabularySource:
    if node.text.strip() == "union":
        return "union"
    if node.text.strip() == "base":
        return "base"
    return read_model(node, problems, "a tokenizer source") or "base"


def _read_tokens(node: Node | None, problems: Problems) -> dict[str, TokenSpec]:
    if node is None:
        return {}
    if not isinstance(node.value, dict):
        problems.add(node.where, "`tokens` must be a mapping of tokens to what they are filled with")
        return {}
    found: dict[str, TokenSpec] = {}
    for token, entry in node.value.items():
        if not token:
            problems.add(entry.where, "a token must not be empty")
        found[token] = _read_token(entry, problems)
    return found


def _read_token(node: Node, problems: Problems) -> TokenSpec:
    fields = problems.fields(node, ("source", "force"), "a token")
    source = fields.get("source")
    force = fields.get("force")
    forced = as_switch(force.value) if force else False
    if force and forced is None:
        problems.add(force.where, "`force` must be true or false")
    row = _read_row(source, problems) if source and source.value is not None else None
    return TokenSpec(row, bool(forced))


def _read_row(node: Node, problems: Problems) -> ModelRef | Zero | ModelToken | None:
    """A model, ``{kind: zero}``, or ``{kind: model_token, model, token | token_id}``."""
    if "kind" not in node.fields:
        return read_model(node, problems, "the source of a token")
    kind = problems.choice(node.fields["kind"], ("zero", "model_token"), "`kind`")
    if kind == "zero":
        problems.fields(node, ("kind",), "a row of zeros")
        return Zero()
    if kind is None:
        return None
    known = problems.fields(node, ("kind", "model", "token", "token_id"), "a token of a model")
    fields = {name: entry for name, entry in known.items() if entry.value is not None}
    if "model" not in fields:
        problems.add(node.where, "a token of a model needs a `model`")
    if ("token" in fields) == ("token_id" in fields):
        problems.add(node.where, "a token of a model needs either its `token` or its `token_id`")
    model = read_model(fields["model"], problems) if "model" in fields else None
    token = _text(fields["token"], problems) if "token" in fields else None
    number = problems.whole(fields["token_id"], "`token_id`", 0, MAX_TOKEN_ID) if "token_id" in fields else None
    return ModelToken(model, token, number) if model else None


def _text(node: Node, problems: Problems) -> str | None:
    """A token, white space included."""
    if node.is_scalar and node.text:
        return node.text
    problems.add(node.where, "`token` must be text")
    return None
