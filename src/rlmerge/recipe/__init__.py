"""What the user asks for: mergekit's YAML, or flags, read into a checked `Recipe`."""

from rlmerge.recipe.canonical import to_yaml_documents
from rlmerge.recipe.chat import ChatTemplate
from rlmerge.recipe.dtypes import LIKE_BASE, canonical_dtype
from rlmerge.recipe.flags import recipe_from_flags
from rlmerge.recipe.layers import layer_count, layer_index
from rlmerge.recipe.layout import Module, Slice, SliceSource
from rlmerge.recipe.load import load_recipe, load_recipes
from rlmerge.recipe.model import Recipe
from rlmerge.recipe.reference import ModelRef
from rlmerge.recipe.setting import Rule, Setting
from rlmerge.recipe.tokenizer import ModelToken, TokenizerSpec, TokenSpec, Zero

__all__ = [
    "LIKE_BASE",
    "ChatTemplate",
    "ModelRef",
    "ModelToken",
    "Module",
    "Recipe",
    "Rule",
    "Setting",
    "Slice",
    "SliceSource",
    "TokenSpec",
    "TokenizerSpec",
    "Zero",
    "canonical_dtype",
    "layer_count",
    "layer_index",
    "load_recipe",
    "load_recipes",
    "recipe_from_flags",
    "to_yaml_documents",
]
