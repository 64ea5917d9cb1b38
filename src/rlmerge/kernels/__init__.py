"""Arithmetic: element types, the tracer, compiled loops, exact selection, rounding, random numbers."""

ARITHMETIC = 2
"""The version of every formula and kernel. It goes up whenever a merge gives other bytes: caches and resumed runs are
keyed by it, and ``tests/golden`` holds the digests that belong to it."""
