import pytest

from rlmerge.errors import RecipeError, RequestError
from rlmerge.moe.config import MAX_EXPERTS, read_config

TEXT = """
base_model: org/base
gate_mode: cheap_embed
dtype: bf16
experts_per_token: 1
architecture: deepseek
experts:
- source_model: org/math@v2
  positive_prompts: [a sum, 42]
  negative_prompts: [a poem]
  residual_scale: 0.5
- source_model: org/verse
  positive_prompts: a poem
  noise_scale: 1e-3
shared_experts:
- source_model: org/base
"""


def test_a_file_in_full(tmp_path):
    file = tmp_path / "moe.yaml"
    file.write_text(TEXT)
    found = read_config(file)
    assert (found.base.reference, found.gate, found.dtype) == ("org/base", "cheap_embed", "bfloat16")
    assert (found.experts_per_token, found.architecture, found.where) == (1, "deepseek", str(file))
    math, verse = found.experts
    assert (math.model.reference, math.model.revision) == ("org/math", "v2")
    assert (math.positive, math.negative) == (("a sum", "42"), ("a poem",))
    assert (math.residual_scale, math.noise_scale, verse.noise_scale) == (0.5, 0.0, 0.001)
    assert verse.positive == ("a poem",)
    assert [expert.model.reference for expert in found.shared] == ["org/base"]
    assert found.warnings == ()


def mixture(experts=({"source_model": "a"}, {"source_model": "b"}), **more):
    return {"base_model": "a", "gate_mode": "random", "experts": list(experts), **more}


def test_defaults():
    prompts = {"positive_prompts": ["x"]}
    found = read_config({"base_model": "a", "experts": [{"source_model": name, **prompts} for name in "abc"]})
    assert (found.gate, found.experts_per_token, found.architecture, found.dtype) == ("hidden", 2, None, None)
    assert read_config(mixture([{"source_model": "a"}])).experts_per_token == 1


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (mixture(gate_mode="hiden"), r"gate_mode: `gate_mode` cannot be 'hiden'\n *Did you mean 'hidden'\?"),
        (mixture(architecture="mixtrall"), r"unknown architecture 'mixtrall'\n *Did you mean 'mixtral'\?"),
        (mixture(dtype="int3"), "'int3' is not a type to merge in"),
        (mixture(experts_per_token=3), r"`experts_per_token` is 3, but there are only 2 to choose from"),
        (mixture(experts_per_token=0), "must be a whole number from 1"),
        (mixture(gate_mode="hidden"), r"experts\[0\]: an expert needs `positive_prompts` with gate_mode hidden"),
        (mixture(gate_mode="cheap_embed"), r"experts\[1\]: an expert needs `positive_prompts` with gate_mode cheap"),
        (
            mixture([{"source_model": "a", "negative_prompts": ["x"]}]),
            r"experts\[0\]: `negative_prompts` count only beside `positive_prompts`",
        ),
        (mixture([{"source_model": "a", "positive_prompts": [["x"]]}]), "must be a list of texts"),
        (mixture([{"source_model": "a", "positive_prompts": [" "]}]), "must be a list of texts"),
        (mixture([{"source_model": "a", "residual_scale": "much"}]), "`residual_scale` must be a number, not 'much'"),
        (mixture([{"source_model": "a", "residual_scale": True}]), "`residual_scale` must be a number"),
        (mixture([{"source_model": "a", "noise_scale": -1}]), "`noise_scale` must be a number of at least 0, not '-1'"),
        (mixture([{"source_model": "a", "noise_scale": float("inf")}]), "`noise_scale` must be a number"),
        (mixture([{"positive_prompts": ["x"]}]), r"experts\[0\]: an expert needs a `source_model`"),
        (mixture([{"source_modl": "a"}]), "unknown key 'source_modl' in an expert"),
        (mixture(["a"]), "an expert must be a mapping"),
        (mixture([]), "experts must be a list of entries with a `source_model`"),
        (mixture([{"source_model": "a"}] * (MAX_EXPERTS + 1)), "513 experts are more than 512"),
        ({"experts": [{"source_model": "a"}]}, "the mixture names no `base_model`"),
        ({"base_model": "a"}, "the mixture names no `experts`"),
        (mixture(merge_method="ties"), "this describes a merge, not a mixture of experts"),
        ("base_model: a\n---\nbase_model: b\n", "holds 2 documents"),
        ("[]\n", "must be a mapping"),
    ],
)
def test_what_is_wrong(asked, said):
    with pytest.raises(RecipeError, match=said):
        read_config(asked)


def test_everything_at_once_with_lines():
    with pytest.raises(RecipeError) as caught:
        read_config("base_model: a\ngate_mode: rnd\nexperts:\n- source_model: b\n  noise_scale: x\n")
    assert [problem.where for problem in caught.value.problems] == ["recipe:2", "recipe:5"]


def test_prompts_without_effect_are_told():
    found = read_config(mixture([{"source_model": "a", "positive_prompts": ["x"]}, {"source_model": "b"}]))
    assert [w for w in found.warnings if "prompts have no effect with gate_mode random" in w]


def test_no_such_file(tmp_path):
    with pytest.raises(RequestError, match="no such recipe file"):
        read_config(tmp_path / "moe.yaml")
