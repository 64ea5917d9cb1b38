import pytest

from rlmerge.errors import RequestError
from rlmerge.recipe import canonical_dtype


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bfloat16", "bfloat16"),
        ("torch.float32", "float32"),
        ("bf16", "bfloat16"),
        ("fp16", "float16"),
        ("fp32", "float32"),
        ("float64", "float64"),
    ],
)
def test_accepted_spellings(name, expected):
    assert canonical_dtype(name, "--dtype") == expected


@pytest.mark.parametrize("name", ["int64", "float8_e4m3fn", "bf15", ""])
def test_anything_else_names_the_place_and_the_choices(name):
    with pytest.raises(RequestError) as caught:
        canonical_dtype(name, "recipe.yaml:3")
    assert caught.value.where == "recipe.yaml:3"
    assert "bfloat16" in caught.value.hint
