"""Coefficients of a merge fitted to what its experts say, on a few unlabelled prompts.

Fitting needs torch and transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rlmerge.extras import require

if TYPE_CHECKING:
    from rlmerge.calibration.options import CalibrationOptions
    from rlmerge.calibration.request import Prompts
    from rlmerge.calibration.results import Calibration
    from rlmerge.progress import Progress
    from rlmerge.recipe import Recipe


def calibrate(
    recipe: Recipe,
    out: Path,
    prompts: Prompts,
    drift: str | None = None,
    options: CalibrationOptions | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """``run.calibrate``; RequestError that says what to install when torch or transformers is missing."""
    require("torch")
    require("transformers")
    from rlmerge.calibration.run import calibrate

    return calibrate(recipe, out, prompts, drift, options, progress)
