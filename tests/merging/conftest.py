"""Fixtures of models on disk."""

from support.fixtures import family, own_cache, values

__all__ = ["family", "own_cache", "values"]
