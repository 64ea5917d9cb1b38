import pytest

from rlmerge import methods
from rlmerge.errors import RequestError
from rlmerge_lab.study import StudyBudget, budget_of
from rlmerge_lab.study.budget import BUDGETS
from rlmerge_lab.training.profiles import PROFILES


@pytest.mark.parametrize("name", BUDGETS)
def test_budgets_name_methods_that_there_are(name):
    budget_of(name).check_methods(methods.names())


def test_profiles_that_train_small_models_have_a_budget():
    assert {"ci", "quick", "full"} <= set(BUDGETS) & set(PROFILES)


def test_a_typo_in_a_profile():
    with pytest.raises(RequestError, match="Did you mean 'quick'"):
        budget_of("qick")


def test_a_typo_in_a_method():
    with pytest.raises(RequestError, match="unknown method 'tise'") as caught:
        StudyBudget(pair_methods=("tise",)).check_methods(methods.names())
    assert "Did you mean 'ties'" in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [{"trials": 1}, {"dev_items": 0}, {"test_items": 0}, {"calibration": -1}, {"health_tokens": 7}, {"sweep": (0.0,)}],
)
def test_budgets_no_study_could_keep_to(wrong):
    with pytest.raises(RequestError):
        StudyBudget(**wrong)
