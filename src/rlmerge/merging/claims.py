"""Whether what a journal says of a tensor can be true: its checksum tells that it is whole, not who wrote it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from rlmerge.checkpoint import JournalEntry

from .job import Job

_LARGEST = 1e100
"""Far from where sums of shares overflow."""

_LONGEST = 1000


def is_account(job: Job, stats: Mapping[str, Any]) -> bool:
    """Whether a merge may account for a job with ``stats``: digests of what was read, and of all its models if merged.

    A job that shares a mask is copied, and has digests alone.
    """
    read = stats.get("inputs")
    if not _are(read, len(job.inputs) if job.output.numel else 0, _is_digest):
        return False
    stats = {key: value for key, value in stats.items() if key != "inputs"}
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


def is_claim(job: Job | None, entry: JournalEntry) -> bool:
    """Whether a journal's entry can be of one of the job's outputs; only the last one's says anything of the merge."""
    if job is None:
        return False
    return is_account(job, entry.stats) if entry.tensor == job.last else not entry.stats


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value) is not None


def _are(values: Any, length: int | None, kind: Callable[[Any], bool]) -> bool:
    return isinstance(values, list) and (length is None or len(values) == length) and all(map(kind, values))


def _is_share(label: str, share: Any) -> bool:
    """Whether a measured ratio has a label and, alone and in a sum, a value."""
    if len(label) > _LONGEST or not _are(share, 3, lambda value: type(value) in (int, float)):
        return False
    part, whole, power = share
    return 0 <= part < _LARGEST and 0 <= whole < _LARGEST and 0 < power <= 4
