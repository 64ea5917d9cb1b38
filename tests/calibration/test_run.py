import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import rlmerge  # noqa: E402
from rlmerge.calibration.report.page import calibration_html  # noqa: E402
from rlmerge.calibration.report.terminal import calibration_text  # noqa: E402
from rlmerge.errors import CheckpointError, RequestError, RlmergeError  # noqa: E402
from rlmerge.recipe import load_recipe  # noqa: E402
from support import tiny  # noqa: E402

RECIPE = """merge_method: task_arithmetic
base_model: base
models:
- {model: plus}
- {model: letters}
"""
PROMPTS = {"plus": "plus.jsonl", "letters": "letters.txt"}
QUICK = {"max_new_tokens": 6, "sequences": 8, "held_out": 2, "batch_size": 16, "layer_groups": 2, "workers": 1}


def calibrate(recipe=RECIPE, prompts=PROMPTS, **options):
    return rlmerge.calibrate(recipe, "out.yaml", prompts, **{**QUICK, "force": True, **options})


def test_the_recipe_is_nearer_to_both_experts(family):
    found = calibrate()
    stages = found.objective
    assert stages["calibrated"] < min(stages["given"], stages["ones"], stages["shared"], stages["base"])
    assert found.parameter == "weight" and found.experts == ("plus", "letters")
    assert found.groups == ("layer 0", "layer 1", "outside the layers")
    assert np.shape(found.values) == (2, 3) and found.nonlinear < 1e-6
    assert [row.prompts for row in found.divergences] == [8, 8]
    assert [row.held_out_prompts for row in found.divergences] == [2, 2]
    for row in found.divergences:
        assert row.fitted.keys() == row.held_out.keys() == stages.keys()
        assert row.told_apart == pytest.approx(1, abs=1e-6)
    assert sum(row.fitted["given"] for row in found.divergences) == pytest.approx(stages["given"])


def test_the_file_is_an_ordinary_recipe_with_those_values(family):
    found = calibrate()
    text = Path("out.yaml").read_text()
    assert text == found.recipe
    recipe = load_recipe(Path("out.yaml"))
    for name, group in {"model.layers.1.mlp.up_proj.weight": 1, "lm_head.weight": 2, "model.norm.weight": 2}.items():
        assert recipe.values(name, 2)["weight"].tolist() == [row[group] for row in found.values]
    comments = [line for line in text.splitlines() if line.startswith("#")]
    for row in found.divergences:
        assert any(row.data_digest in line and row.data in line for line in comments)
    assert any("seed 0" in line for line in comments) and any(torch.__version__ in line for line in comments)
    result = rlmerge.merge("out.yaml", "merged", cache=False)
    assert result.out.is_dir()


def test_the_divergence_is_that_of_the_merged_model(family):
    """The figure of the calibrated stage, from scratch: the merged directory against the expert on its responses."""
    found = calibrate(responses="given", prompts={"plus": "plus.jsonl", "letters": "plus.jsonl"}, held_out=0)
    rlmerge.merge("out.yaml", "merged", cache=False, out_dtype="float32")
    models = {}
    from transformers import AutoModelForCausalLM

    for name in ("plus", "merged"):
        models[name] = AutoModelForCausalLM.from_pretrained(name, dtype="float32").eval()
    tokenizer, total, tokens = tiny.tokenizer(), 0.0, 0
    for line in Path("plus.jsonl").read_text().splitlines()[:8]:
        row = json.loads(line)
        prompt = tokenizer(row["prompt"])["input_ids"]
        ids = prompt + tokenizer(row["response"], add_special_tokens=False)["input_ids"] + [2]
        with torch.no_grad():
            ours, theirs = (
                models[name](input_ids=torch.tensor([ids])).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
                for name in ("plus", "merged")
            )
        total += (ours.exp() * (ours - theirs)).sum().item()
        tokens += len(ids) - len(prompt)
    assert found.divergences[0].tokens == tokens
    # Weights merged in float32 here and from float64 differences there.
    assert found.divergences[0].fitted["calibrated"] == pytest.approx(total / tokens, rel=1e-4)


def test_equal_runs_write_equal_files(family):
    first = calibrate(seed=3).recipe
    assert calibrate(seed=3).recipe == first
    assert calibrate(seed=4).recipe != first


def test_the_base_speaks_for_what_is_no_experts(family):
    Path("general.txt").write_text("a=b\nc-d\n1 2 3\nk l m\n0-9\n")
    free, bound = calibrate(), calibrate(drift="general.txt", drift_weight=100.0)
    assert [row.role for row in bound.divergences] == ["expert", "expert", "drift"]
    drift = bound.divergences[2]
    assert (drift.name, drift.weight, drift.prompts, drift.held_out_prompts) == ("base", 100.0, 4, 1)
    # At the base's own weights there is none, up to float32 rounding of logits.
    assert drift.fitted["base"] == pytest.approx(0, abs=1e-5)
    assert np.abs(bound.values).sum() < np.abs(free.values).sum()


@pytest.mark.parametrize("options", [{"stream_gradients": True}, {"scratch": "held"}, {"gradient_checkpointing": True}])
def test_what_saves_memory_changes_nothing_but_rounding(family, options):
    plain = calibrate(steps=3)
    saving = calibrate(steps=3, **options)
    np.testing.assert_allclose(saving.values, plain.values, rtol=1e-3, atol=1e-3)


def test_lambda_is_fitted_where_weights_are_not_linear(family):
    found = calibrate(RECIPE.replace("task_arithmetic", "ties"), steps=5)
    assert found.parameter == "lambda" and np.shape(found.values) == (1, 3) and found.rows == ("all experts",)
    assert any("not linear in its weights" in warning for warning in found.warnings)
    assert load_recipe(Path("out.yaml")).values("model.norm.weight", 2)["lam"] == found.values[0][2]
    assert found.objective["calibrated"] <= found.objective["given"]


def test_weights_of_the_recipe_are_where_a_good_start_is(family):
    """Weights that were calibrated before are the best start there is, and are given back as good."""
    first = calibrate()
    again = rlmerge.calibrate("out.yaml", "again.yaml", PROMPTS, **QUICK)
    assert again.start == "given"
    assert again.objective["given"] == pytest.approx(first.objective["calibrated"], rel=1e-6)
    assert again.objective["calibrated"] <= again.objective["given"] * 1.001


def test_an_adapter_can_be_an_expert(family):
    """Weights come through rlmerge's own readers: an expert need be nothing that transformers loads."""
    from safetensors.torch import save_file

    folder = family / "adapter"
    folder.mkdir()
    generator = torch.Generator().manual_seed(5)
    key = "base_model.model.model.layers.0.mlp.up_proj.lora_{}.weight"
    shapes = {"A": (2, 16), "B": (24, 2)}
    save_file(
        {key.format(k): torch.randn(s, generator=generator) for k, s in shapes.items()},
        folder / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["up_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    recipe = RECIPE.replace("model: plus", "model: base+adapter")
    found = calibrate(recipe, prompts=["plus.jsonl", "letters.txt"], steps=3)
    assert found.objective["calibrated"] < found.objective["base"]


def _other_tokens(family, **changed):
    path = family / "letters" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"] |= changed
    path.write_text(json.dumps(content))


def _swapped_tokens(family):
    _other_tokens(family, a=tiny.VOCABULARY.index("b"), b=tiny.VOCABULARY.index("a"))


def _another_token(family):
    _other_tokens(family, z=len(tiny.VOCABULARY))


def _equal_to_base(family):
    for name in ("plus", "letters"):
        tiny.save(family / name, tiny.llama())


def _not_a_number(family):
    model = tiny.llama()
    model.lm_head.weight.data[0, 0] = float("nan")
    tiny.save(family / "plus", model)


def _not_causal(family):
    config = json.loads((family / "base" / "config.json").read_text())
    (family / "base" / "config.json").write_text(json.dumps({**config, "model_type": "t5"}))


def _blank(family):
    (family / "plus.jsonl").write_text("\n\n")


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (_swapped_tokens, RequestError, "the id 19 is 'a' in letters and 'b' in base"),
        (_another_token, RequestError, "32 tokens against 31"),
        (_equal_to_base, RequestError, "the experts do not differ from it"),
        (_not_a_number, RlmergeError, "(?i)nan"),
        (_not_causal, CheckpointError, "transformers cannot load it"),
        (_blank, RequestError, "holds no examples"),
    ],
)
def test_what_is_wrong_is_one_error_and_nothing_is_written(family, spoil, kind, message):
    spoil(family)
    with pytest.raises(kind, match=message):
        calibrate()
    assert not Path("out.yaml").exists()


def test_prompts_on_which_nothing_changes_are_refused(family, monkeypatch):
    """As where experts changed rows of the embedding alone that no prompt reads."""
    from rlmerge.calibration.divergence import Merged

    monkeypatch.setattr(Merged, "slope", lambda self, values, voices, advance: (0.5, np.zeros(values.shape)))
    with pytest.raises(RequestError, match="no coefficient changes what the merged model says"):
        calibrate()
    assert not Path("out.yaml").exists()


def test_data_without_rest_is_said_to_prove_nothing(family):
    found = calibrate(held_out=0, steps=1)
    assert all(row.held_out == {} for row in found.divergences)
    assert sum("no prompts held out" in warning for warning in found.warnings) == 2
    assert any("stopped after 1 steps" in warning for warning in found.warnings)


def test_reports_show_every_value(family):
    result = calibrate(steps=3).to_dict()
    assert json.loads(json.dumps(result, allow_nan=False))["schema"] == "rlmerge.calibrate/1"
    text = calibration_text(result, width=120, color=False)
    page = calibration_html(result)
    for row in result["values"]:
        for value in row:
            shown = f"{value:.4g}".replace("-", "−")
            assert shown in text and shown in page
    for word in ("plus", "letters", "layer 1", "outside the layers", "out.yaml"):
        assert word in text
    narrow = calibration_text(result, width=60, color=False)
    assert max(map(len, narrow.splitlines())) <= 60
