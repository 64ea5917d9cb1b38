"""The command line: one file a verb; each parses, calls one library function, and prints what it returns."""

from rlmerge.cli.app import main

__all__ = ["main"]
