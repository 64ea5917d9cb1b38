"""Does transformers load a model directory? Configuration, tokenizer and weights, and what is left over or missing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rlmerge.errors import RequestError
from rlmerge.extras import require
from rlmerge.frozen import frozen


@frozen
class LoadCheck:
    """What loading found.

    ``architecture`` is the class that was built; ``unexpected`` tensors of the files it has no place for, ``missing``
    ones it would have to make up, ``mismatched`` ones of another shape. ``problems`` are sentences about the rest.
    """

    architecture: str
    unexpected: tuple[str, ...]
    missing: tuple[str, ...]
    mismatched: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the model loads whole."""
        return not (self.unexpected or self.missing or self.mismatched or self.problems)


def check_load(directory: str | os.PathLike[str], *, trust_code: bool = False) -> LoadCheck:
    """Load ``directory`` with transformers as its users will, weights on the CPU in their stored type.

    RequestError without the extra ``torch``, or for a configuration that names no architecture that transformers has.
    """
    transformers = require("transformers")
    root = str(Path(directory))
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        config = transformers.AutoConfig.from_pretrained(root, trust_remote_code=trust_code, local_files_only=True)
    except Exception as error:  # transformers raises whatever its own readers do
        raise RequestError(f"transformers cannot read its configuration ({_line(error)})", where=root) from error
    names = list(getattr(config, "architectures", None) or [])
    factory = next((getattr(transformers, name) for name in names if hasattr(transformers, name)), None)
    if factory is None:
        factory = transformers.AutoModel
        names = names or ["AutoModel"]
    problems: list[str] = []
    info: dict[str, Any] = {}
    try:
        _, info = factory.from_pretrained(
            root, config=config, output_loading_info=True, dtype="auto", local_files_only=True,
            trust_remote_code=trust_code, low_cpu_mem_usage=True, ignore_mismatched_sizes=True,
        )  # fmt: skip
    except Exception as error:
        problems.append(f"the weights do not load ({_line(error)})")
    problems += _tokenizer_problems(transformers, root, config, trust_code)
    unexpected, missing, mismatched = (
        tuple(sorted(_names(info.get(key, ())))) for key in ("unexpected_keys", "missing_keys", "mismatched_keys")
    )
    return LoadCheck(names[0], unexpected, missing, mismatched, tuple(problems))


def _tokenizer_problems(transformers: Any, root: str, config: Any, trust_code: bool) -> list[str]:
    """What keeps the tokenizer, if there is one, from loading, and tokens beyond the embedding."""
    if not any((Path(root) / name).exists() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        return []
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            root, local_files_only=True, trust_remote_code=trust_code
        )
    except Exception as error:
        return [f"the tokenizer does not load ({_line(error)})"]
    rows = getattr(getattr(config, "text_config", config), "vocab_size", None)
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if isinstance(rows, int) and largest >= rows:
        return [f"the tokenizer has a token {largest}, but the vocabulary has {rows} rows"]
    return []


def _names(keys: Any) -> list[str]:
    return [key if isinstance(key, str) else str(key[0]) for key in keys]


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
