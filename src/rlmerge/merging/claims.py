"""Whether what a journal says of a tensor can be true: its checksum tells that it is whole, not who wrote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .job import Job

_LARGEST = 1e100
"""Far from where sums of shares overflow."""

_LONGEST = 1000


def is_account(job: Job, stats: Mapping[str, Any]) -> bool:
    """Whether ``Account.stats`` may give ``stats`` for a job: empty for a copy, else of its number of models."""
    if job.method is None or not stats:
        return not stats
    experts = len(job.models)
    counts, sums, notes, report = (stats.get(key) for key in ("counts", "sums", "notes", "report"))
    return (
        stats.keys() <= {"counts", "sums", "notes", "report"}
        and (counts is None) == (sums is None)
        and (counts is None or _are(counts, 2 + 4 * experts, lambda x: type(x) is int and 0 <= x <= job.output.numel))
        and (sums is None or _are(sums, 5 * experts, lambda x: type(x) is float or (type(x) is int and abs(x) < 2**63)))
        and _are(notes, None, lambda note: isinstance(note, str))
        and (report is None or (isinstance(report, dict) and all(_is_share(*share) for share in report.items())))
    )


def _are(values: Any, length: int | None, kind: Callable[[Any], bool]) -> bool:
    return isinstance(values, list) and (length is None or len(values) == length) and all(map(kind, values))


def _is_share(label: str, share: Any) -> bool:
    """Whether a measured ratio has a label and, alone and in a sum, a value."""
    if len(label) > _LONGEST or not _are(share, 3, lambda value: type(value) in (int, float)):
        return False
    part, whole, power = share
    return 0 <= part < _LARGEST and 0 <= whole < _LARGEST and 0 < power <= 4
