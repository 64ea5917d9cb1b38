"""A model with another's tokenizer: rows of shared tokens are kept, those of new ones made from them."""

from .run import FILLS, Transplant, transplant

__all__ = ["FILLS", "Transplant", "transplant"]
