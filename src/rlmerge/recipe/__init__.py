"""What the user asks for: mergekit's YAML, or flags, read strictly into a checked `Recipe`."""

from rlmerge.recipe.dtypes import canonical_dtype
from rlmerge.recipe.layers import layer_count, layer_index
from rlmerge.recipe.load import load_recipe, recipe_from_flags
from rlmerge.recipe.model import Recipe, Source
from rlmerge.recipe.reference import ModelRef
from rlmerge.recipe.setting import Rule, Setting

__all__ = [
    "ModelRef",
    "Recipe",
    "Rule",
    "Setting",
    "Source",
    "canonical_dtype",
    "layer_count",
    "layer_index",
    "load_recipe",
    "recipe_from_flags",
]
