import json

import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.align import align
from rlmerge.checkpoint.shared import share
from rlmerge.checkpoint.special_tokens import generation_of, shown_id, stop_ids, translated
from rlmerge.checkpoint.tokenizer import TokenizerReader
from rlmerge.checkpoint.vocabulary import Member, TokenizerSpec
from rlmerge.errors import CheckpointError
from support.tokenizers import write_tables, write_tokenizer


@pytest.fixture
def make(tmp_path):
    """Make a model of five rows: its tokens, what generates, and what config.json says."""

    def build(name, tokens=("a", "b", "c", "d", "e"), generation=None, config=None, **special):
        folder = write_tables(tmp_path / name, 5, **(config or {}))
        write_tokenizer(folder, list(tokens), generation=generation, **special)
        checkpoint = open_checkpoint(str(folder))
        return Member(checkpoint, TokenizerReader().read(checkpoint.side_root))

    return build


def taken(found):
    return json.loads(found.file) if isinstance(found.file, bytes) else found.file.parent.name


def test_several_stop_tokens_are_kept_whole(make):
    base, one = make("base", generation={"eos_token_id": 0}), make("e1", generation={"eos_token_id": [3, 0, 2]})
    found = generation_of(share([base, one]), [one])
    assert (taken(found), found.stops, found.edits) == ("e1", (3, 0, 2), {})


def test_equal_content_is_the_bases_file(make):
    written = {"eos_token_id": 1, "transformers_version": "4"}
    base, one = make("base", generation=written), make("e1", generation={"eos_token_id": 1, "output_attentions": False})
    assert taken(generation_of(share([base, one]), [one])) == "base"


def test_what_only_some_state_is_shared_by_those(make):
    base = make("base", config={"eos_token_id": 0, "bos_token_id": 1})
    one, two = make("e1", config={"eos_token_id": 2}), make("e2", config={"bos_token_id": 3, "eos_token_id": 2})
    found = generation_of(share([base, one, two]), [one, two])
    assert found.edits == {"eos_token_id": 2, "bos_token_id": 3}
    assert (found.file, found.stops) == (None, (2,))


def test_stop_tokens_of_disagreeing_configurations_are_joined(make):
    base, one, two = (make(name, config={"eos_token_id": i}) for i, name in enumerate(("base", "e1", "e2")))
    found = generation_of(share([base, one, two]), [one, two])
    assert found.edits == {"eos_token_id": [0, 1, 2]}
    assert [warning.split("/")[-1] for warning in found.warnings] == [
        "e1 also stops at 'b' (1); the output does too",
        "e2 also stops at 'c' (2); the output does too",
    ]


def test_ids_move_with_their_tokens(make):
    base = make("base", generation={"eos_token_id": 0, "suppress_tokens": [1, 2]})
    one = make("e1", ["e", "d", "c", "b", "a"], {"eos_token_id": [4, 1], "pad_token_id": 0}, eos_token="a")
    vocabulary = align([base, one], TokenizerSpec("base"))
    assert stop_ids(vocabulary, one) == [0, 3]
    found = generation_of(vocabulary, [one])
    assert taken(found) == {"eos_token_id": [0, 3], "pad_token_id": 4}


def test_every_part_of_a_configuration_is_translated(make):
    config = {
        "eos_token_id": [0, 4],
        "image_token_index": 1,
        "pad_token_id": -1,
        "num_layers": 2,
        "vision_config": {"start_token_id": 2, "depth": 2},
        "bos_token_id": None,
    }
    base = make("base", config=config)
    one = make("e1", ["e", "x", "b", "y", "z"])
    edited, lost = translated(align([base, one], TokenizerSpec(one.checkpoint)), config)
    assert edited == {
        "eos_token_id": [0],
        "image_token_index": 2,
        "pad_token_id": -1,
        "num_layers": 2,
        "vision_config": {"start_token_id": None, "depth": 2},
        "bos_token_id": None,
    }
    assert lost == ["start_token_id"]


def test_tokens_in_messages(make):
    vocabulary = share([make("base")])
    assert shown_id(vocabulary, 1) == "'b' (1)"
    assert shown_id(vocabulary, 9) == "9"


@pytest.mark.parametrize(("text", "message"), [("[]", "must hold a JSON object"), ("{", "not valid JSON")])
def test_a_file_that_is_none(make, text, message):
    base = make("base")
    (base.checkpoint.path / "generation_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=rf"generation_config\.json: .*{message}"):
        generation_of(share([base]), [])
