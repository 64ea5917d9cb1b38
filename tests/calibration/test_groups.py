import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.calibration.groups import OUTSIDE, Groups, make_groups, rounded
from rlmerge.errors import RequestError

LLAMA = [
    "model.embed_tokens.weight",
    *(
        f"model.layers.{k}.{w}.weight"
        for k in range(12)
        for w in ("self_attn.q_proj", "mlp.up_proj", "input_layernorm")
    ),
    "model.norm.weight",
]


def members(groups):
    return {label: [n for n, g in groups.group_of.items() if g == k] for k, label in enumerate(groups.labels)}


def test_layers_fall_into_runs_as_equal_as_can_be():
    groups = make_groups(LLAMA, 5, False)
    assert groups.labels == ("layers 0–2", "layers 3–4", "layers 5–7", "layers 8–9", "layers 10–11", OUTSIDE)
    assert members(groups)["layers 3–4"] == [name for name in LLAMA if ".3." in name or ".4." in name]
    assert members(groups)[OUTSIDE] == ["model.embed_tokens.weight", "model.norm.weight"]


def test_kinds_cut_every_run():
    groups = make_groups(LLAMA, 2, True)
    assert groups.labels == (
        *(f"layers {run}, {kind}" for run in ("0–5", "6–11") for kind in ("attention q", "MLP up", "norm")),
        "embedding",
        "norm",
    )


def test_more_runs_than_layers_are_one_a_layer():
    assert make_groups(LLAMA, 99, False).labels == (*(f"layer {k}" for k in range(12)), OUTSIDE)


def test_no_runs_are_one_group():
    groups = make_groups(LLAMA, 0, False)
    assert groups.labels == ("all tensors",)
    assert groups.setting([0.5]).plain() == 0.5


def test_rules_name_layers_and_not_tensors():
    assert make_groups(LLAMA[:7], 2, False).setting([0.25, 0.5, 1.0]).plain() == [
        {"filter": "layers.0.", "value": 0.25},
        {"filter": "layers.1.", "value": 0.5},
        {"value": 1.0},
    ]


def test_rules_name_modules_where_layers_are_cut():
    setting = make_groups(LLAMA[1:4], 1, True).setting([0.25, 0.5, 1.0]).plain()
    assert [rule.get("filter") for rule in setting] == [
        "layers.0.self_attn.",
        "layers.0.mlp.",
        "layers.0.input_layernorm.",
        None,
    ]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["model.layers.{}.", "h.{}.", "tower.blocks.{}.", ""]),
            st.integers(0, 12),
            st.sampled_from(["a.w", "a.w.b", "b", "mlp.a", "xlayers.1.w", "embed.weight", "w"]),
        ),
        min_size=1,
        max_size=20,
    ),
    st.integers(0, 5),
    st.booleans(),
)
def test_every_tensor_gets_the_value_of_its_group(parts, runs, kinds):
    names = list(dict.fromkeys(start.format(layer) + end for start, layer, end in parts))
    groups = make_groups(names, runs, kinds)
    values = [k + 0.5 for k in range(len(groups.labels))]
    setting = groups.setting(values)
    assert {name: setting.at(name, 0.3) for name in names} == {n: values[g] for n, g in groups.group_of.items()}


def test_equal_values_need_no_rules():
    groups = make_groups(LLAMA, 3, False)
    assert groups.setting([0.7] * 4).plain() == 0.7


def test_groups_are_checked_against_their_rules(monkeypatch):
    """Should patterns ever fail to tell two tensors apart, a recipe must not be written."""
    monkeypatch.setattr(Groups, "_patterns", [(None, 0)])
    with pytest.raises(RequestError, match="no rule of a recipe sets it apart"):
        make_groups(LLAMA, 2, False)


@pytest.mark.parametrize(("value", "written"), [(0.123456, 0.1235), (-1.00004, -1.0), (1234.56, 1235.0), (0.0, 0.0)])
def test_coefficients_have_four_digits(value, written):
    assert rounded(value) == written
