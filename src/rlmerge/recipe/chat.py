"""Reads `chat_template`: the models' own, one of ours by name, or Jinja text."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Literal

from rlmerge.frozen import frozen
from rlmerge.recipe.problems import Problems
from rlmerge.recipe.reference import ModelRef, existing, read_model
from rlmerge.recipe.tree import Node
from rlmerge.recipe.words import near_miss

BUILT_IN = ("alpaca", "chatml", "exaone", "llama3", "mistral")
"""Names that mergekit's recipes use for templates of their own."""


@frozen(slots=True)
class ChatTemplate:
    """The chat template a recipe asks for.

    ``kind`` says what ``text`` is: ``auto`` (the one most of the models have), the name of a ``built_in`` one, that of
    a ``model`` whose template is taken, or the ``jinja`` text itself.
    """

    kind: Literal["auto", "built_in", "model", "jinja"]
    text: str
    model: ModelRef | None = None

    def map_model(self, change: Callable[[ModelRef], ModelRef]) -> ChatTemplate:
        """The same of another model."""
        if self.model is None:
            return self
        model = change(self.model)
        return replace(self, text=str(model), model=model)


def read_chat_template(node: Node | None, models: Collection[str], problems: Problems) -> ChatTemplate | None:
    """The chat template at ``node``; None where there is none, and after reporting what is no template.

    ``models`` are the identities of the recipe's models: a word among them is no typo.
    """
    if node is None:
        return None
    if isinstance(node.value, dict):
        model = read_model(node, problems)
        return ChatTemplate("model", str(model), model) if model else None
    name = problems.text(node, "`chat_template`")
    if name is None:
        return None
    if "{" in name:
        return ChatTemplate("jinja", node.text)
    if name == "auto":
        return ChatTemplate("auto", name)
    if name in BUILT_IN:
        return ChatTemplate("built_in", name)
    model = read_model(node, problems)
    if model is None:
        return None
    if model.stage or "/" in name or model.identity in models or existing(name):
        return ChatTemplate("model", str(model), model)
    meant = near_miss(name, ("auto", *BUILT_IN))
    hint = f"Did you mean '{meant}'?" if meant else f"Give auto, one of {', '.join(BUILT_IN)}, a model, or Jinja text."
    problems.add(node.where, f"'{name}' is not a chat template", hint)
    return None
