"""Everything beside the weights, from directories as training leaves them; transformers loads what is planned."""

import json

import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.config import with_dtype
from rlmerge.checkpoint.identity import plan_identity
from rlmerge.checkpoint.vocabulary import TokenizerSpec, TokenSpec
from rlmerge.errors import CheckpointError
from support.identity import CHAT, content, copied, make_model, written
from support.models import CONFIG, write_model
from support.tokenizers import write_tokenizer

__all__ = ["make_model"]  # a fixture


def test_models_that_agree_are_copied_byte_for_byte(make):
    kwargs = {"chat": CHAT, "generation": {"eos_token_id": [4, 0]}, "eos_token": "<|end|>"}
    base = make("base", **kwargs, files={"LICENSE": "x", "preprocessor_config.json": {}})
    found = plan_identity(base, [make("e1", **kwargs), make("e2", **kwargs)])
    assert copied(found) == dict.fromkeys(
        ["LICENSE", "chat_template.jinja", "config.json", "generation_config.json", "preprocessor_config.json",
         "tokenizer.json", "tokenizer_config.json"], "base",
    )  # fmt: skip
    assert (found.warnings, found.notes) == ((), ())
    assert found.config == base.config
    assert found.tensors(base) == base.tensors


def test_what_all_experts_added_and_the_base_lacks(make, tmp_path):
    base = make("base", eos_token="a", generation={"eos_token_id": 1, "temperature": 0.5}, config={"eos_token_id": 1})
    experts = [
        make(
            name,
            ["<think>", "</think>"],
            chat=CHAT,
            eos_token="<|end|>",
            generation={"eos_token_id": [4, 1], "transformers_version": name},
            config={"eos_token_id": 4},
        )
        for name in ("e1", "e2")
    ]
    found = plan_identity(base, experts)
    assert copied(found) == dict.fromkeys(
        ["chat_template.jinja", "generation_config.json", "tokenizer.json", "tokenizer_config.json"], "e1"
    )
    assert content(found, "config.json") == {**base.config, "eos_token_id": 4}
    assert content(found, "generation_config.json")["eos_token_id"] == [4, 1]
    assert found.warnings == ()
    # One line says what is taken, and from whom.
    (line,) = found.notes
    tokens, template, generation = line.split("; ")
    assert "e1 (beside" in tokens and tokens.endswith("it has '<think>', '</think>')")
    assert "share" in template and template.endswith("has none)")
    assert "generation_config.json is that of" in generation and generation.endswith("which agree")
    transformers = pytest.importorskip("transformers")
    loaded = transformers.AutoTokenizer.from_pretrained(written(found, tmp_path / "out"))
    assert loaded("a <think> b").input_ids == [1, 5, 2]
    assert (loaded.eos_token, loaded.eos_token_id) == ("<|end|>", 4)
    assert loaded.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False) == "<|user|>a<|end|>"


def test_experts_that_disagree_lose_nothing_silently(make):
    base = make("base", eos_token="a", generation={"eos_token_id": 1})
    one = make("e1", chat=CHAT, eos_token="<|end|>", generation={"eos_token_id": 4, "temperature": 0.7})
    two = make("e2", chat="other", eos_token="b", generation={"eos_token_id": 1})
    found = plan_identity(base, [one, two])
    assert set(copied(found).values()) == {"base"}
    assert content(found, "generation_config.json") == {"eos_token_id": [1, 4]}
    assert "chat_template.jinja" not in found.files
    text = "\n".join(found.warnings)
    assert "e1 also stops at '<|end|>' (4); the output does too" in text
    assert "e1 generates with temperature 0.7 (unset in the output)" in text
    for name in ("e1", "e2"):
        assert f"{name} has another chat template than the output, which has none" in text
    assert 'e1 has eos_token "<|end|>" ("a" in the output)' in text


def test_a_padding_token_that_all_experts_chose(make):
    base = make("base", eos_token="a")
    experts = [make(name, eos_token="a", pad_token="b") for name in ("e1", "e2")]
    found = plan_identity(base, experts)
    assert content(found, "tokenizer_config.json")["pad_token"] == "b"
    assert copied(found)["tokenizer.json"] == "base"
    assert found.warnings == ()
    mixed = plan_identity(base, [*experts, make("e3", eos_token="a")])
    assert copied(mixed)["tokenizer_config.json"] == "base"
    assert sum('has pad_token "b" (unset in the output)' in warning for warning in mixed.warnings) == 2


def test_an_expert_that_lends_its_tokenizer_is_still_compared(make):
    base, one = make("base", config={"rope_theta": 1e4}), make("e1", config={"rope_theta": 1e6})
    found = plan_identity(base, [one], tokenizer=TokenizerSpec(one))
    assert any("rope_theta" in warning for warning in found.warnings)


def test_an_eos_that_only_the_tokenizers_say_reaches_generation(make):
    base = make("base", eos_token="a", generation={"eos_token_id": 1, "pad_token_id": 0}, config={"eos_token_id": 1})
    experts = [make(name, eos_token="<|end|>", pad_token="b") for name in ("e1", "e2")]
    found = plan_identity(base, experts)
    assert content(found, "generation_config.json") == {"eos_token_id": [4, 1], "pad_token_id": 2}
    assert found.config["eos_token_id"] == 4


def test_without_any_generation_config_the_configuration_stops(make):
    base = make("base", eos_token="a", config={"text_config": {"eos_token_id": 1}})
    found = plan_identity(base, [make("e1", eos_token="<|end|>")])
    assert found.config["text_config"]["eos_token_id"] == 4
    assert "generation_config.json" not in found.files


def test_a_base_without_a_generation_config(make):
    found = plan_identity(make("base"), [make("e1", generation={"eos_token_id": 2}), make("e2")])
    assert copied(found)["generation_config.json"] == "e1"


def test_one_id_with_two_tokens_is_an_error_unless_the_recipe_chooses(make):
    base, one, two = make("base"), make("e1", ["<x>"]), make("e2", ["<y>"])
    with pytest.raises(CheckpointError, match=r"the id 5 is '<y>' in .*e2 and '<x>' in .*e1"):
        plan_identity(base, [one, two])
    found = plan_identity(base, [one, two], tokenizer=TokenizerSpec("union"))
    assert found.vocabulary.ids["<x>"] == 5 and found.vocabulary.ids["<y>"] == 6
    for source in (one, "base"):
        plan_identity(base, [one, two], tokenizer=TokenizerSpec(source))


def test_a_union_edits_the_bases_files(make, tmp_path):
    decoder = {"4": {"content": "<|end|>", "special": True}}
    base = make(
        "base", rows=5, eos_token="a", added_tokens_decoder=decoder, files={"added_tokens.json": {"<|end|>": 4}}
    )
    one = make("e1", ["<x>"], rows=6, eos_token="<|end|>", chat=CHAT)
    found = plan_identity(base, [one], tokenizer=TokenizerSpec("union"))
    assert found.config["vocab_size"] == 6
    assert content(found, "added_tokens.json") == {"<|end|>": 4, "<x>": 5}
    assert content(found, "tokenizer_config.json")["added_tokens_decoder"]["5"]["special"] is True
    original = (base.path / "tokenizer.json").read_text()
    changed = content(found, "tokenizer.json")
    assert changed["added_tokens"][-1]["content"] == "<x>"
    assert {**changed, "added_tokens": 0} == {**json.loads(original), "added_tokens": 0}
    assert found.tensors(base)["lm_head.weight"].shape == (6, 2)
    # The experts share a template, and the union has all its tokens.
    assert content(found, "chat_template.jinja") == CHAT
    assert 'e1 has eos_token "<|end|>" ("a" in the output)' in "\n".join(found.warnings)
    transformers = pytest.importorskip("transformers")
    loaded = transformers.AutoTokenizer.from_pretrained(written(found, tmp_path / "out"))
    assert len(loaded) == 6
    assert loaded("a <x>").input_ids == [1, 5]


def test_another_models_tokenizer_with_its_own_stop_tokens(make):
    base = make(
        "base",
        chat="{{ base }}",
        eos_token="a",
        config={"eos_token_id": 1, "pad_token_id": 2, "image_token_id": 3},
        generation={"eos_token_id": 1, "top_k": 5},
        files={"vocab.json": {"a": 0}, "merges.txt": "x"},
    )
    one = make("e1", tokenizer=False, rows=3, config={"eos_token_id": 2})
    write_tokenizer(one.path, ["b", "a", "</s>"], eos_token="</s>", chat="{{ one }}")
    one = open_checkpoint(str(one.path))
    found = plan_identity(base, [one], tokenizer=TokenizerSpec(one))
    assert copied(found)["chat_template.jinja"] == "e1"
    # Files of the base's tokenizer that this one does not have would contradict it.
    assert not {"vocab.json", "merges.txt"} & set(found.files)
    assert found.config == {
        **base.config,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "image_token_id": None,
        "vocab_size": 3,
    }
    assert content(found, "generation_config.json") == {"eos_token_id": [2, 1], "top_k": 5}
    assert any("image_token_id of config.json" in warning for warning in found.warnings)
    assert any("base has another chat template" in warning for warning in found.warnings)


def test_the_bases_tokenizer_names_what_experts_lose(make):
    base = make("base", eos_token="a", generation={"eos_token_id": 1})
    one = make("e1", ["<think>"], chat=CHAT, eos_token="<|end|>", generation={"eos_token_id": [4, 1]})
    found = plan_identity(base, [one], tokenizer=TokenizerSpec("base"))
    assert set(copied(found).values()) == {"base"}
    text = "\n".join(found.warnings)
    assert "the output's tokenizer lacks '<think>' of" in text
    assert "stops at '<|end|>' (4), the output does not" in text
    assert "has another chat template than the output, which has none" in text


def test_the_bases_tokenizer_in_a_format_that_is_not_read(make):
    base, one = (make(name, tokenizer=False, files={"tokenizer.model": "\n\x07x"}) for name in ("base", "e1"))
    found = plan_identity(base, [one], tokenizer=TokenizerSpec("base"))
    assert copied(found)["tokenizer.model"] == "base"
    with pytest.raises(CheckpointError, match="not read token by token"):
        plan_identity(base, [one], tokenizer=TokenizerSpec("union"))


def test_a_tokenizer_from_training_loses_its_truncation(make):
    base, one = make("base"), make("e1", ["<x>"])
    path = one.path / "tokenizer.json"
    path.write_text(path.read_text().replace('"truncation": null', '"truncation": {"max_length": 7}'))
    found = plan_identity(base, [one])
    assert content(found, "tokenizer.json")["truncation"] is None
    assert [token["content"] for token in content(found, "tokenizer.json")["added_tokens"]] == ["<x>"]


def test_quantization_config_over_plain_weights(make):
    base, one = make("base", config={"quantization_config": {"quant_method": "gptq", "bits": 4}}), make("e1")
    found = plan_identity(base, [one])
    assert "quantization_config" not in content(found, "config.json")
    assert any("quantization_config" in warning for warning in found.warnings)


def test_configurations_that_compute_otherwise(make):
    base = make("base", config={"rope_theta": 1e4, "rms_norm_eps": 1e-6})
    one = make("e1", config={"rope_theta": 1e6, "rms_norm_eps": 1e-6, "logit_cap": 3, "max_position_embeddings": 9})
    found = plan_identity(base, [one])
    assert len(found.warnings) == 1
    assert "e1 differs: rope_theta 1000000.0 against 10000.0 in the output" in found.warnings[0]
    assert any("e1 also differs in logit_cap 3 against unset" in note for note in found.notes)


def test_a_longer_context_is_lost_and_a_shorter_is_not(make):
    short, long = (make(f"m{n}", config={"max_position_embeddings": n}) for n in (10, 20))
    assert any("max_position_embeddings 20 against 10" in warning for warning in plan_identity(short, [long]).warnings)
    found = plan_identity(long, [short])
    assert found.warnings == ()
    assert any("max_position_embeddings 10 against 20" in note for note in found.notes)


def test_code_is_refused_or_copied(make):
    files = {"modeling_my.py": "x = 1", "tokenizer_config.json": {"auto_map": {"AutoTokenizer": "tok.T"}}, "tok.py": ""}
    mapped = {"auto_map": {"AutoModel": "modeling_my.M"}}
    base, one = make("base", config=mapped, files=files), make("e1")
    with pytest.raises(CheckpointError, match="--trust-code"):
        plan_identity(base, [one])
    found = plan_identity(base, [one], trust_code=True)
    assert {"modeling_my.py", "tok.py"} <= set(found.files)
    # Code of an expert whose tokenizer is taken is needed as well.
    expert = make("e2", ["<x>"], files={"tok2.py": ""}, auto_map={"AutoTokenizer": "tok2.T"})
    with pytest.raises(CheckpointError, match="--trust-code"):
        plan_identity(one, [expert])
    assert "tok2.py" in plan_identity(one, [expert], trust_code=True).files


def test_files_that_would_not_load_are_found_at_once(make):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n"
    base, one = make("base"), make("e1")
    for name in ("tokenizer.json", "tokenizer.model", "preprocessor_config.json", "generation_config.json"):
        (base.path / name).rename(base.path / "kept") if (base.path / name).exists() else None
        (base.path / name).write_text(pointer)
        with pytest.raises(CheckpointError, match=rf"{name}: is a Git LFS pointer"):
            plan_identity(open_checkpoint(str(base.path)), [one])
        (base.path / name).unlink()
        (base.path / "kept").rename(base.path / name) if (base.path / "kept").exists() else None


def test_what_is_not_copied_is_said(make):
    base = make("base", files={"speech_tokenizer/config.json": {}, "prompts.txt": "x", "trainer_state.json": {}})
    found = plan_identity(base, [make("e1")])
    assert any("not copied from" in n and n.endswith("base: prompts.txt, speech_tokenizer/") for n in found.notes)


def test_further_edits_of_the_configuration(make):
    base, one = make("base", config={"torch_dtype": "float32"}), make("e1", config={"torch_dtype": "float32"})
    found = plan_identity(base, [one])
    assert found.with_config(found.config) is found.files
    edited = found.with_config(with_dtype(found.config, "bfloat16"))
    assert json.loads(edited["config.json"])["torch_dtype"] == "bfloat16"


def test_without_a_base_the_models_are_equals(make):
    one = make("e1", eos_token="a", generation={"eos_token_id": 1}, chat="one")
    two = make("e2", ["<x>"], eos_token="<|end|>", generation={"eos_token_id": 4}, chat="one")
    for order in ([one, two], [two, one]):
        found = plan_identity(None, order)
        assert "<x>" in found.vocabulary.ids
        assert set(content(found, "generation_config.json")["eos_token_id"]) == {1, 4}
        assert found.warnings
    assert plan_identity(None, [one]).notes == ()


def test_models_without_configuration_or_tokenizer(tmp_path):
    for name in ("base", "e1"):
        write_model(tmp_path / name, {"w": np.ones(3)})
        (tmp_path / name / "config.json").unlink()
    base, one = (open_checkpoint(str(tmp_path / name)) for name in ("base", "e1"))
    found = plan_identity(base, [one, base])
    assert (found.config, dict(found.files)) == (None, {})
    assert found.with_config(None) is found.files
    assert any("no config.json" in warning for warning in found.warnings)


def test_forced_and_padded_rows_reach_the_tables(make):
    base, one = make("base", rows=5), make("e1", ["<x>"], rows=6)
    spec = TokenizerSpec("union", {"<x>": TokenSpec("zero", force=True)}, 8)
    found = plan_identity(base, [one], tokenizer=spec)
    table = found.tensors(one)["model.embed_tokens.weight"].read().reshape(8, 2)
    assert table[:5, 0].tolist() == [0, 1, 2, 3, 4]
    assert table[5].tolist() == [0, 0]
    assert table[6].tolist() == table[7].tolist() == np.float32(table[:6].mean(0, dtype=np.float64)).tolist()
    assert found.config["vocab_size"] == 8


def test_a_configuration_that_a_format_replaces_is_written(make):
    from dataclasses import replace

    base = make("base")
    found = plan_identity(replace(base, config={**CONFIG, "vocab_size": 9, "extra": 1}), [make("e1")])
    assert content(found, "config.json")["extra"] == 1
