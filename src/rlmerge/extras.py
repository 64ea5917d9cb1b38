"""Optional packages, imported only when asked for."""

from __future__ import annotations

import importlib
from typing import Any

from rlmerge.errors import RequestError

_INSTALL = {
    "torch": "pip install 'rlmerge[torch]'",
    "transformers": "pip install 'rlmerge[torch]'",
    "reasoning_gym": "pip install 'rlmerge[gym]'",
    "trl": "pip install 'rlmerge[lab]'",
    "datasets": "pip install 'rlmerge[lab]'",
    "tokenizers": "pip install 'rlmerge[lab]'",
    "zstandard": "pip install 'rlmerge[deltas]'",
    "blake3": "pip install blake3",
}


def require(name: str) -> Any:
    """The module ``name``; RequestError with the command that installs it when it is absent."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise RequestError(f"this needs the package '{name}', which is not installed", hint=_INSTALL[name]) from None
