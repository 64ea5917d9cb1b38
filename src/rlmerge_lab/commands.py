"""The verbs that this package adds to `rlmerge` by its entry points; a function imports its verb when called."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click


def lab() -> click.Command:
    """Train experts by reinforcement and supervision, merge them, judge the papers' claims."""
    from rlmerge_lab.cli.lab import command

    return command


def scaling() -> click.Command:
    """Re-run the published study of sparsity against model size."""
    from rlmerge_lab.cli.scaling import command

    return command
