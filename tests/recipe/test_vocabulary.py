from rlmerge.methods import get, names
from rlmerge.recipe.differences import MERGEKIT_METHODS
from rlmerge.recipe.vocabulary import MODULE_KEYS, PLACES, RECIPE_KEYS, SLICE_KEYS, is_seed, names_mergekit


def test_no_parameter_is_called_like_a_key_of_another_place():
    """It would be refused as misplaced before the method is asked."""
    assert {name for method in names() for name in get(method).names} & set(PLACES) == set()
    assert not any(is_seed(name) for method in names() for name in get(method).names)


def test_every_key_of_the_language_has_a_place():
    assert set(RECIPE_KEYS) - {"name"} <= set(PLACES)
    assert set(MODULE_KEYS) <= set(PLACES)
    assert set(SLICE_KEYS) - {"residual_weight"} <= set(PLACES)


def test_the_parameters_of_mergekits_methods_are_known():
    """Names that only rlmerge has: they are not found in recipes written for mergekit."""
    ours = {"scope", "rank_nonzero", "floor", "norm_floor", "active", "percentile", "shared", "undecided"}
    found = {name for method in MERGEKIT_METHODS for name in get(method).names}
    assert {name for name in found if not names_mergekit(name)} == ours


def test_seeds():
    assert [is_seed(name) for name in ("seed", "random_seed", "sede")] == [True, True, False]
