"""Files of prompts."""

from __future__ import annotations

import json
from pathlib import Path

from rlmerge.errors import RequestError


def read_prompts(file: Path) -> tuple[str, ...]:
    """Prompts of a text file, one a line, or of a ``.jsonl`` file with ``prompt`` on each; RequestError if none."""
    try:
        content = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot be read ({error})", where=str(file), hint="Name a text or .jsonl file.") from error
    # Not str.splitlines: JSON strings may hold U+2028 and friends unescaped.
    lines = [(number, line.rstrip("\r")) for number, line in enumerate(content.split("\n"), 1) if line.strip()]
    if not lines:
        raise RequestError("holds no prompts", where=str(file), hint="Write one prompt a line.")
    if file.suffix not in (".jsonl", ".ndjson"):
        return tuple(line for _, line in lines)
    return tuple(_prompt(line, f"{file}:{number}") for number, line in lines)


def _prompt(line: str, where: str) -> str:
    try:
        prompt = json.loads(line)["prompt"]
    except (ValueError, KeyError, TypeError) as error:
        hint = 'Each line holds {"prompt": "…"}.'
        raise RequestError(f"holds no prompt ({error!r})", where=where, hint=hint) from error
    if not isinstance(prompt, str) or not prompt:
        hint = "A chat is asked by its user's turn alone, with --chat."
        raise RequestError("the prompt must be a string that is not empty", where=where, hint=hint)
    return prompt
