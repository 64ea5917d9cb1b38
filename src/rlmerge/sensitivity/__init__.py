"""Which parameters a model's answers are sensitive to: the diagonal Fisher, and Gram matrices of layer inputs.

Measuring needs torch and transformers; reading what was measured (``store.load_sensitivity``) does not.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rlmerge.extras import require

if TYPE_CHECKING:
    from rlmerge.checkpoint.sensitivity_record import SensitivityResult
    from rlmerge.progress import Progress
    from rlmerge.sensitivity.options import SensitivityOptions


def measure(
    model: str | os.PathLike[str],
    data: str,
    out: str | os.PathLike[str],
    options: SensitivityOptions | None = None,
    progress: Progress | None = None,
) -> SensitivityResult:
    """``measurement.measure``; RequestError that says what to install when torch or transformers is missing."""
    require("torch")
    require("transformers")
    from rlmerge.sensitivity import measurement

    return measurement.measure(model, data, out, options, progress)
