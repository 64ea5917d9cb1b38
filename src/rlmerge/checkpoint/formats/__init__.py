"""What training leaves that is no Hugging Face directory, recognised by its file names and opened as sources.

Each module of this package names its kinds in ``FORMATS``. They are looked at only where a directory holds neither
``model.safetensors`` nor its index, so that opening a plain model imports none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlmerge.checkpoint.source import Source
from rlmerge.frozen import frozen

if TYPE_CHECKING:
    from rlmerge.checkpoint.model import Checkpoint

_MODULES: tuple[str, ...] = (
    "adapter", "rank_files", "dcp_safetensors", "dcp", "zero", "torch_bin",
    "delta", "delta_slime", "delta_skyrl", "delta_trl", "delta_grail",
)  # fmt: skip


ADAPTER = "a LoRA adapter"
"""What a checkpoint is called that is an adapter on its base."""


@frozen
class Opened:
    """What a directory of some format holds.

    ``side_root`` is the directory with config, tokenizer and the like where it is not the model's own; ``config``
    replaces what its config.json says.
    """

    format: str
    tensors: Mapping[str, Source]
    warnings: tuple[str, ...] = ()
    side_root: Path | None = None
    config: Mapping[str, Any] | None = None


@frozen
class Format:
    """A kind of directory.

    ``recognises(root, names)`` looks at the sorted names of its entries alone. ``open(root, names, base)`` reads
    headers and metadata, never weights, and executes nothing; CheckpointError if they are malformed or incomplete.
    With ``needs_base`` the format holds changes of another model, which is given. ``is_safetensors`` says that weights
    are read through ``read_header`` alone, so that they may as well be on another machine.
    """

    name: str
    recognises: Callable[[Path, Sequence[str]], bool]
    open: Callable[[Path, Sequence[str], Checkpoint | None], Opened]
    needs_base: bool = False
    is_safetensors: bool = False


def find_format(root: Path, names: Sequence[str]) -> Format | None:
    """The first format that recognises a directory, or None."""
    for module in _MODULES:
        kinds: Sequence[Format] = import_module(f"{__name__}.{module}").FORMATS
        for kind in kinds:
            if kind.recognises(root, names):
                return kind
    return None
