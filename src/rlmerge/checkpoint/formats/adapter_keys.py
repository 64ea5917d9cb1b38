"""What the names of an adapter's tensors mean: which module, which part of its update."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from rlmerge.checkpoint.source import Source
from rlmerge.errors import CheckpointError

PREFIX = "base_model.model."
"""How PEFT names begin."""

_MAX_NAME = 250

_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_fsdp_wrapped_module|_orig_mod|_checkpoint_wrapped_module)\.")
_NAME = r"(?:\.(?P<adapter>[^.]+))?"
_FORMS = (
    (r"lora_(?P<part>[AB])" + _NAME + r"\.(?P<kind>weight|bias)", "lora_{part}.{kind}"),
    (r"lora_embedding_(?P<part>[AB])" + _NAME, "lora_embedding_{part}"),
    (r"lora_magnitude_vector(?:\.weight|" + _NAME + r"(?:\.weight)?)", "magnitude"),
    (r"token_adapter\.trainable_tokens_delta" + _NAME, "rows"),
    (r"modules_to_save\.(?P<adapter>[^.]+)\.(?P<part>.+)", "whole.{part}"),
    (r"(?:original_module|token_adapter\.(?:base_layer|trainable_tokens_original))\.(?P<part>.+)", "untouched.{part}"),
    (r"base_layer\.(?P<part>weight|bias)", "stored.{part}"),
)
_PATTERNS = tuple((re.compile(rf"(?P<module>.+)\.{form}"), role) for form, role in _FORMS)
_MARKS = re.compile(r"(?:^|\.)(?:lora_|token_adapter\.|base_layer\.|prompt_|ia3_|vera_|hada_|boft_|oft_)")


@dataclass
class Module:
    """The tensors that an adapter holds for one module, by their part in it.

    ``lora_A.weight``, ``lora_B.weight`` and ``lora_B.bias`` are the factors of a layer, ``lora_embedding_A`` and ``_B``
    of an embedding, ``magnitude`` is DoRA's, ``rows`` are trained rows, ``stored.weight`` and ``stored.bias`` what the
    layer held below its update, and ``whole.<parameter>`` what replaces a parameter.
    """

    name: str
    parts: dict[str, Source] = field(default_factory=dict[str, Source])

    def take(self, part: str) -> Source | None:
        """The tensor of ``part``, removed from what is left to be explained."""
        return self.parts.pop(part, None)


def group(tensors: Mapping[str, Source], where: str) -> list[Module]:
    """The tensors of an adapter by module, in order of the modules' names.

    CheckpointError for names of no known meaning and for files that hold several adapters.
    """
    modules: dict[str, Module] = {}
    adapters: set[str] = set()
    for name, source in tensors.items():
        if len(name) > _MAX_NAME:
            raise CheckpointError(f"the name {name[:60]!r}… is too long", where=where, hint=_OTHER)
        module, part, adapter = _parse(name, where)
        if adapter is not None:
            adapters.add(adapter)
        if part.startswith("untouched."):
            continue
        parts = modules.setdefault(module, Module(module)).parts
        if part in parts:
            what = f"holds {part} of {module} twice, as {parts[part].name!r} and {name!r}"
            raise CheckpointError(what, where=where, hint=_OTHER)
        parts[part] = source
    if len(adapters) > 1:
        what = f"holds {len(adapters)} adapters ({', '.join(sorted(adapters))})"
        hint = "Save each by itself: save_pretrained(…, selected_adapters=[NAME])."
        raise CheckpointError(what, where=where, hint=hint)
    return [modules[name] for name in sorted(modules)]


def _parse(name: str, where: str) -> tuple[str, str, str | None]:
    """(module, part, adapter name or None) of one tensor."""
    plain = _WRAPPERS.sub("", name).removeprefix(PREFIX)
    for pattern, role in _PATTERNS:
        found = pattern.fullmatch(plain)
        if found:
            named = found.groupdict()
            return named["module"], role.format(**named), named.get("adapter")
    module, dot, parameter = plain.rpartition(".")
    if not dot or _MARKS.search(plain):
        raise CheckpointError(f"{name!r} has no meaning known here", where=where, hint=_OTHER)
    return module, f"whole.{parameter}", None


_OTHER = "Merge the adapter into its base with the version of PEFT that wrote it, or save it again with a current one."
