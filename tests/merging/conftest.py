"""Fixtures of models on disk."""

from support.fixtures import family, matrices, own_cache, values

__all__ = ["family", "matrices", "own_cache", "values"]
