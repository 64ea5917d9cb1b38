"""An outcome as files: figures as PNG and SVG, tables as CSV, the result as JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rlmerge.errors import RequestError
from rlmerge_lab.scaling.extra import need
from rlmerge_lab.scaling.figures.style import Figure, Theme
from rlmerge_lab.scaling.registry import Outcome

DPI = 160


def write(outcome: Outcome, directory: Path) -> tuple[Path, ...]:
    """Write one study's files into ``directory``, made when absent; RequestError when that cannot be."""
    files: dict[str, bytes] = {f"{outcome.name}.json": _json(outcome)}
    for table in outcome.tables:
        files[f"{table.name}.csv"] = table.to_csv().encode()
    for figure in outcome.figures:
        files[f"{figure.name}.png"] = image(figure, "png")
        files[f"{figure.name}.svg"] = image(figure, "svg")
    return tuple(write_file(directory / name, content) for name, content in files.items())


def write_file(path: Path, content: bytes) -> Path:
    """Write ``content`` to ``path`` and its missing parents; RequestError naming the path when the system refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise RequestError(
            f"cannot write: {error.strerror or error}", where=str(path), hint="Give another directory with -o."
        ) from error
    return path


def image(figure: Figure, kind: str, theme: Theme | None = None) -> bytes:
    """One figure drawn; the same bytes every time (no date, fixed identifiers)."""
    drawn = figure.draw(theme or Theme())
    target = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with need("matplotlib").rc_context({"svg.fonttype": "path", "svg.hashsalt": "rlmerge"}):
        drawn.savefig(target, format=kind, dpi=DPI, metadata=metadata)
    return target.getvalue()


def _json(outcome: Outcome) -> bytes:
    return (json.dumps(outcome.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
