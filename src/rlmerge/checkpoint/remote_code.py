"""Python files that a configuration names in ``auto_map``: copied when they are trusted, refused when they are not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.directory import entries
from rlmerge.checkpoint.disguise import HEAD, refuse_disguise
from rlmerge.checkpoint.paths import inside, read_bytes
from rlmerge.errors import CheckpointError

_MAX_CODE = 2**24
_MAX_CONFIG = 2**28
_ROLE = re.compile(r"(configuration|modeling|tokenization|processing|image_processing|video_processing)_\w+\.py")
"""How Hugging Face repositories call the files that a loader imports."""


def code_files(root: Path, configs: Mapping[str, Path | bytes], trusted: bool) -> dict[str, Path]:
    """The Python files in ``root`` that loading a model with these configurations imports, by name.

    ``configs`` are JSON files by name; those without an ``auto_map`` need none. Nothing is executed: imports are read
    off the syntax. CheckpointError if code is needed and not ``trusted``, or a file that is named is not there.
    """
    named = {module: name for name, content in configs.items() for module in _modules(name, content)}
    if not named:
        return {}
    if not trusted:
        module, name = next(iter(named.items()))
        what = f"{name} names Python code to be run on loading (auto_map: {module}.py)"
        hint = (
            "Read that code, then copy it along with --trust-code; or remove auto_map from the JSON file where "
            "transformers knows the model type by itself."
        )
        raise CheckpointError(what, where=str(root), hint=hint)
    present = entries(root)
    found: dict[str, Path] = {}
    waiting = [(f"{module}.py", named[module]) for module in named]
    waiting += [(name, name) for name in present if _ROLE.fullmatch(name)]
    while waiting:
        name, named_by = waiting.pop()
        if name in found:
            continue
        if name not in present:
            hint = "Copy it from the repository of the model, or remove what names it."
            raise CheckpointError(f"{named_by} names {name}, which is not there", where=str(root), hint=hint)
        found[name] = inside(root, name)
        waiting += [(f"{module}.py", name) for module in _imports(found[name])]
    return dict(sorted(found.items()))


def _modules(name: str, content: Path | bytes) -> Iterator[str]:
    """Modules of the model's own directory that a JSON file names; other repositories' are loaded from there."""
    data = content if isinstance(content, bytes) else read_bytes(content, _MAX_CONFIG)
    parsed = strictjson.parse(data, name, unique_keys=False)
    mapped = parsed.get("auto_map") if isinstance(parsed, dict) else None
    values: list[Any] = list(mapped.values()) if isinstance(mapped, dict) else [mapped]
    for value in (x for entry in values for x in (entry if isinstance(entry, list) else [entry])):
        if not isinstance(value, str) or "--" in value:
            continue
        module = value.rpartition(".")[0]
        if not module.isidentifier():
            hint = "An auto_map names module.Class of a file beside the configuration."
            raise CheckpointError(f"auto_map names {value[:60]!r}, which is no file of it", where=name, hint=hint)
        yield module


def _imports(path: Path) -> Iterator[str]:
    """Modules beside ``path`` that it imports relatively."""
    data = read_bytes(path, _MAX_CODE)
    refuse_disguise(data[:HEAD], str(path))
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        hint = "Download the file again."
        raise CheckpointError("is not valid Python", where=str(path), hint=hint) from error
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
            yield from names
