"""The extra this room needs, asked for in one place so that its absence reads the same everywhere."""

from __future__ import annotations

import importlib
from types import ModuleType

from rlmerge.errors import RequestError


def need(module: str) -> ModuleType:
    """Import ``module`` of scipy or matplotlib, or say how to install it (RequestError)."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RequestError(
            f"the scale study needs {module.partition('.')[0]}, which is not installed",
            hint="Install it with: pip install 'rlmerge[scaling]'",
        ) from error
