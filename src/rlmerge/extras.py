"""Optional packages, imported only when asked for."""

from __future__ import annotations

import importlib
from typing import Any

from rlmerge.errors import RequestError

_INSTALL = {
    "torch": "pip install 'rlmerge[torch]'",
    "transformers": "pip install 'rlmerge[torch]'",
    "reasoning_gym": "pip install 'rlmerge[gym]'",
    "httpx2": "pip install 'rlmerge[server]'",
    "scipy": "pip install 'rlmerge[scaling]'",
    "trl": "pip install 'rlmerge[lab]'",
    "datasets": "pip install 'rlmerge[lab]'",
    "peft": "pip install 'rlmerge[lab]'",
    "tokenizers": "pip install 'rlmerge[lab]'",
    "zstandard": "pip install 'rlmerge[deltas]'",
    "optuna": "pip install 'rlmerge[tune]'",
    "sqlalchemy": "pip install 'rlmerge[tune]'",
    "cmaes": "pip install 'rlmerge[tune]'",
    "obstore": "pip install 'rlmerge[remote]'",
    "huggingface_hub": "pip install 'rlmerge[hub]'",
    "ray": "pip install 'rlmerge[ray]'",
    "blake3": "pip install blake3",
}


def require(name: str) -> Any:
    """The module ``name``, of a package or inside it; RequestError with the command that installs what is absent."""
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in (name, package):
            raise
        what = f"this needs the package '{package}', which is not installed"
        raise RequestError(what, hint=_INSTALL[package]) from None
