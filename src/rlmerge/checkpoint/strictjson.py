"""JSON from files nobody has vouched for: one error type, no silent choice between duplicate keys."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from rlmerge.checkpoint.disguise import HEAD, refuse_disguise
from rlmerge.errors import CheckpointError


def parse(data: bytes, where: str, *, unique_keys: bool = True) -> Any:
    """``data`` as JSON, or a CheckpointError that starts with ``where``.

    With ``unique_keys`` an object that holds a key twice is refused: readers disagree on which of the two counts, so a
    file can show one thing to a scanner and another to a loader.
    """

    def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if unique_keys and len(found) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise CheckpointError(f"the key {twice!r} appears twice", where=where, hint="Write the file again.")
        return found

    refuse_disguise(data[:HEAD], where)
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=object_of)
    except UnicodeDecodeError as error:
        raise CheckpointError(f"is not UTF-8 text (byte {error.start})", where=where, hint=_DAMAGED) from None
    except RecursionError:
        raise CheckpointError("is nested too deeply to be JSON of a checkpoint", where=where, hint=_DAMAGED) from None
    except ValueError as error:
        raise CheckpointError(f"is not valid JSON ({error})", where=where, hint=_DAMAGED) from None


_DAMAGED = "The file is damaged or is something else; download or save it again."
