"""The same weights under other names: what is recognised, what is left alone, and what is written."""

import numpy as np
import pytest

from rlmerge.checkpoint import ArraySource
from rlmerge.errors import RecipeError
from rlmerge.kernels.dtypes import FLOAT32
from rlmerge.merging.names import canonical, rename_like, unwrap, unwrapped
from support.merges import merge, plan, write

TEXT = {
    "model.embed_tokens.weight": [[1, 2], [3, 4]],
    "model.layers.0.mlp.up_proj.weight": [[5, 6], [7, 8]],
    "model.layers.0.input_layernorm.weight": [1, 1],
    "model.norm.weight": [2, 2],
    "lm_head.weight": [[9, 8], [7, 6]],
}
ADD = "{merge_method: task_arithmetic, base_model: $/base, models: [$/expert]}"


def plus(tensors, step):
    return {name: (np.asarray(values, float) + step).tolist() for name, values in tensors.items()}


def renamed(tensors, rule):
    return {rule(name): values for name, values in tensors.items()}


def sources(tensors):
    return {
        name: ArraySource(name, FLOAT32, np.asarray(values, np.float32), "model") for name, values in tensors.items()
    }


WRAPPERS = {
    "_orig_mod.model.norm.weight": "model.norm.weight",
    "module.model.norm.weight": "model.norm.weight",
    "module.module.model.norm.weight": "model.norm.weight",
    "base_model.model.model.norm.weight": "model.norm.weight",
    "_forward_module.model.norm.weight": "model.norm.weight",
    "model._fsdp_wrapped_module.norm.weight": "model.norm.weight",
    "_fsdp_wrapped_module._orig_mod.model.norm.weight": "model.norm.weight",
    "model.layers.3._checkpoint_wrapped_module.mlp.up.weight": "model.layers.3.mlp.up.weight",
    # No wrapper: a module that merely is called so, or contains the word.
    "model.module.weight": "model.module.weight",
    "model.my_orig_mod.weight": "model.my_orig_mod.weight",
    "base_model.norm.weight": "base_model.norm.weight",
}


@pytest.mark.parametrize(("name", "plain"), WRAPPERS.items())
def test_wrappers(name, plain):
    assert unwrapped(name) == plain


@pytest.mark.parametrize(
    "wrap",
    [
        lambda name: "_orig_mod." + name,
        lambda name: "module." + name,
        lambda name: "base_model.model." + name,
        lambda name: name.replace("model.", "model._fsdp_wrapped_module.", 1),
        lambda name: name.replace("layers.0.", "layers.0._checkpoint_wrapped_module."),
        lambda name: name.removeprefix("model."),  # saved without the head's module
        lambda name: "actor.model." + name,  # Lightning and its like: any prefix
    ],
    ids=["compile", "ddp", "peft", "fsdp", "checkpointing", "headless", "prefix"],
)
def test_a_wrapped_expert_is_merged_under_the_bases_names(tmp_path, wrap):
    write(tmp_path, base=TEXT, expert=renamed(plus(TEXT, 0.5), wrap))
    merged, result = merge(tmp_path, ADD)
    assert merged == plus(TEXT, 0.5)
    assert sum("other names:" in warning for warning in result.warnings) == 1, "said once"


def test_without_a_base_wrapped_names_are_never_written(tmp_path):
    write(
        tmp_path,
        a=renamed(TEXT, lambda name: "_orig_mod." + name),
        b=renamed(plus(TEXT, 1), lambda name: "module." + name),
        c=plus(TEXT, 2),
    )
    for models in ("$/a, $/b", "$/b, $/a"):
        merged, _ = merge(tmp_path, f"{{merge_method: linear, models: [{models}]}}", out=f"out-{models[2]}")
        assert merged == plus(TEXT, 0.5)
    assert set(merge(tmp_path, "{merge_method: linear, models: [$/a, $/c]}")[0]) == set(TEXT)


def test_a_name_that_would_be_taken_twice_is_left_alone():
    both = sources({"_orig_mod.w": [1.0], "w": [2.0]})
    assert unwrap(both, "model").tensors == both
    reference = sources({"w": [0.0], "v": [0.0]})
    found = rename_like(sources({"module.v": [1.0], "_orig_mod.v": [2.0]}), reference, "model")
    assert set(found.tensors) == {"module.v", "_orig_mod.v"}
    assert found.notes == ()


# Layouts of vision-language models

HUB = ["model.layers.0.w", "model.norm.weight", "visual.blocks.0.w", "visual.merger.mlp.0.weight", "lm_head.weight"]
SAVED = [
    "model.language_model.layers.0.w",
    "model.language_model.norm.weight",
    "model.visual.blocks.0.w",
    "model.visual.merger.mlp.0.weight",
    "lm_head.weight",
]
LLAVA_OLD = [
    "language_model.model.layers.0.w",
    "language_model.lm_head.weight",
    "vision_tower.vision_model.encoder.layers.0.w",
    "multi_modal_projector.linear_1.weight",
]
LLAVA_NEW = [
    "model.language_model.layers.0.w",
    "lm_head.weight",
    "model.vision_tower.vision_model.encoder.layers.0.w",
    "model.multi_modal_projector.linear_1.weight",
]


@pytest.mark.parametrize(("one", "other"), [(HUB, SAVED), (SAVED, HUB), (LLAVA_OLD, LLAVA_NEW), (LLAVA_NEW, LLAVA_OLD)])
def test_vision_language_models_of_either_age(tmp_path, one, other):
    base = {name: [float(k), 1.0] for k, name in enumerate(one)}
    write(tmp_path, base=base, expert={new: [k + 0.25, 3.0] for k, new in enumerate(other)})
    merged, _ = merge(tmp_path, ADD)
    assert merged == {name: [k + 0.25, 3.0] for k, name in enumerate(one)}


def test_aliases_meet_in_one_spelling():
    for pair in zip(HUB + LLAVA_OLD, SAVED + LLAVA_NEW, strict=True):
        assert len(set(map(canonical, pair))) == 1


# Experts of a mixture

SINGLE = {
    "model.layers.0.mlp.experts.0.gate_proj.weight": [[1, 2]],
    "model.layers.0.mlp.experts.0.up_proj.weight": [[3, 4]],
    "model.layers.0.mlp.experts.0.down_proj.weight": [[5], [6]],
    "model.layers.0.mlp.experts.1.gate_proj.weight": [[7, 8]],
    "model.layers.0.mlp.experts.1.up_proj.weight": [[9, 10]],
    "model.layers.0.mlp.experts.1.down_proj.weight": [[11], [12]],
}
"""Two experts from two inputs to one hidden unit."""

FUSED = {
    "model.layers.0.mlp.experts.gate_up_proj": [[[1, 2], [3, 4]], [[7, 8], [9, 10]]],
    "model.layers.0.mlp.experts.down_proj": [[[5], [6]], [[11], [12]]],
}
MIXTRAL = {
    f"model.layers.0.block_sparse_moe.experts.{k}.{name}.weight": SINGLE[
        f"model.layers.0.mlp.experts.{k}.{part}.weight"
    ]
    for k in range(2)
    for name, part in (("w1", "gate_proj"), ("w3", "up_proj"), ("w2", "down_proj"))
}


@pytest.mark.parametrize(
    ("base", "expert"),
    [(SINGLE, FUSED), (FUSED, SINGLE), (MIXTRAL, FUSED), (FUSED, MIXTRAL)],
    ids=["to-single", "to-fused", "to-mixtral", "from-mixtral"],
)
def test_experts_stored_one_by_one_or_fused(tmp_path, base, expert):
    write(tmp_path, base=base, expert=plus(expert, 0.5))
    assert merge(tmp_path, ADD)[0] == plus(base, 0.5)


def test_an_expert_too_few_is_not_fused():
    three = {name: [*values, values[0]] for name, values in FUSED.items()}
    found = rename_like(sources(SINGLE), sources(three), "model")
    assert set(found.tensors) == set(SINGLE)
    assert found.notes == ()


# Prefixes


def test_a_prefix_maps_all_tensors_under_it_or_none():
    """``actor.a.w`` and ``actor.b.w`` fit, ``actor.c.w`` has another shape: then the prefix means something else."""
    reference = sources({"a.w": [1.0, 2.0], "b.w": [1.0, 2.0], "c.w": [1.0, 2.0]})
    fits = {"actor.a.w": [3.0, 4.0], "actor.b.w": [3.0, 4.0]}
    assert set(rename_like(sources(fits), reference, "m").tensors) == {"a.w", "b.w"}
    broken = rename_like(sources(fits | {"actor.c.w": [1.0]}), reference, "m")
    assert set(broken.tensors) == {"actor.a.w", "actor.b.w", "actor.c.w"}


def test_a_text_expert_goes_into_the_text_tower(tmp_path):
    base = {
        "model.language_model.layers.0.w": [1, 2],
        "model.language_model.norm.weight": [3, 4],
        "model.visual.blocks.0.w": [5, 6],
        "lm_head.weight": [7, 8],
    }
    text = {"model.layers.0.w": [1.5, 2.5], "model.norm.weight": [3.5, 4.5], "lm_head.weight": [7.5, 8.5]}
    write(tmp_path, base=base, expert=text)
    merged, result = merge(tmp_path, ADD)
    assert merged == plus(base, 0.5) | {"model.visual.blocks.0.w": [5, 6]}
    assert any("no expert has 1 tensor ('model.visual.blocks.0.w')" in warning for warning in result.warnings)


def test_other_models_stay_other_models(tmp_path):
    write(tmp_path, base=TEXT, expert={"transformer.h.0.attn.weight": [[1, 2], [3, 4]], "transformer.ln_f.weight": [1]})
    with pytest.raises(RecipeError, match=r"expert: holds only 0% of the parameters of .*base"):
        plan(tmp_path, ADD)
