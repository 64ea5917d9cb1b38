"""Reads the keys that say what the output holds beside merged weights: types, tokenizer, chat template."""

from __future__ import annotations

from rlmerge.errors import RequestError
from rlmerge.recipe.dtypes import canonical_dtype
from rlmerge.recipe.problems import Problems
from rlmerge.recipe.reference import ModelRef
from rlmerge.recipe.tree import Node

_KEEPS_BASE = "This version keeps the base's tokenizer: write `tokenizer_source: base` or leave it out."


def read_dtype(node: Node | None, problems: Problems) -> str | None:
    """The canonical name of a float type; reports an unknown one."""
    text = problems.text(node, "a dtype") if node else None
    if node is None or text is None:
        return None
    try:
        return canonical_dtype(text, node.where)
    except RequestError as error:
        problems.errors.append(error)
        return None


def read_chat_template(node: Node | None, problems: Problems) -> str | None:
    """The Jinja text of a chat template; None for the base's own."""
    if node is None or problems.text(node, "`chat_template`") is None:
        return None
    if node.text == "auto":
        problems.warn(node.where, "`chat_template: auto` copies the base's chat template")
        return None
    if "{{" in node.text or "{%" in node.text:
        return node.text
    problems.add(
        node.where, f"the built-in chat template '{node.text}' is not supported", "Give the template's Jinja text."
    )
    return None


def read_tokenizer(top: dict[str, Node], donor: ModelRef | None, problems: Problems) -> str | None:
    """``base`` when the recipe asks for the tokenizer of ``donor`` by any name; reports what needs surgery."""
    source = top.get("tokenizer_source")
    if "tokenizer" in top:
        if source:
            problems.add(source.where, "give `tokenizer` or `tokenizer_source`, not both")
        fields = problems.fields(top["tokenizer"], ("source", "tokens", "pad_to_multiple_of"), "`tokenizer`")
        for name in ("tokens", "pad_to_multiple_of"):
            if name in fields and fields[name].value not in (None, {}):
                problems.add(fields[name].where, f"`tokenizer.{name}` is not supported yet", _KEEPS_BASE)
        source = fields.get("source")
    text = problems.text(source, "a tokenizer source") if source else None
    if source is None or text is None:
        return None
    if text != "base" and (donor is None or ModelRef.parse(text).identity != donor.identity):
        problems.add(source.where, f"tokenizer source '{text}' is not supported yet", _KEEPS_BASE)
    return "base"
