"""Vocabularies of models whose recipe says nothing of them: rows matched by position, the tokenizer that knows most."""

import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.shared import lost_tokens, share
from rlmerge.checkpoint.tokenizer import TokenizerReader
from rlmerge.checkpoint.vocabulary import Member
from rlmerge.errors import CheckpointError
from support.tokenizers import write_tables, write_tokenizer

EMBED = "model.embed_tokens.weight"


@pytest.fixture
def family(tmp_path):
    """Make a model with a tokenizer; row i of model m holds 100 m + i and 100 m + i + ½."""
    made = []

    def make(tokens=("a", "b"), added=(), rows=4, **config):
        number = len(made)
        folder = write_tables(tmp_path / f"m{number}", rows, start=100.0 * number)
        if tokens:
            write_tokenizer(folder, tokens, added, **config)
        checkpoint = open_checkpoint(folder)
        made.append(Member(checkpoint, TokenizerReader().read(checkpoint.side_root)))
        return made[-1]

    return make


def first_column(vocabulary, member):
    return vocabulary.tensors(member.checkpoint)[EMBED].read().reshape(-1, 2)[:, 0].tolist()


def test_equal_tokenizers(family):
    members = [family(), family(), family()]
    found = share(members)
    assert (found.donor, found.size, found.tokens) == (members[0], 4, 2)
    assert (found.warnings, found.notes) == ((), ())
    for member in members:
        assert found.tensors(member.checkpoint)[EMBED] is member.checkpoint.tensors[EMBED]


def test_tokens_that_all_experts_added_within_the_padding(family):
    base, one, two = family(), family(added=["<x>"]), family(added=["<x>"])
    found = share([base, one, two])
    assert (found.donor, found.size) == (one, 4)
    assert found.ids == {"a": 0, "b": 1, "<x>": 2}
    assert found.warnings == ()
    assert found.notes == ()
    assert found.taken[0].endswith("m0's tokens it has '<x>')")
    # Trained from the base's row 2, so that is what each is compared with.
    assert found.tensors(base.checkpoint)[EMBED] is base.checkpoint.tensors[EMBED]


def test_tokens_that_only_some_experts_added(family):
    base, one, two = family(), family(), family(added=["<x>"])
    found = share([base, one, two])
    assert found.donor is two
    assert "has '<x>' beside the tokens of" in found.warnings[0]
    assert found.warnings[0].endswith(f"{one.name} lacks some of them")


def test_resized_embeddings(family):
    base, one, two = family(rows=2), family(added=["<x>"], rows=3), family(added=["<x>"], rows=3)
    found = share([base, one, two])
    assert (found.donor, found.size) == (one, 3)
    assert first_column(found, base) == [0, 1, (102 + 202) / 2]
    assert first_column(found, two) == [200, 201, 202]


def test_padded_and_cut_tables_of_the_same_tokens(family):
    base, padded, cut = family(rows=4), family(rows=6), family(rows=2)
    found = share([base, padded, cut])
    assert (found.donor, found.size) == (base, 4)
    assert first_column(found, padded) == [100, 101, 102, 103]
    assert first_column(found, cut) == [200, 201, 2, 3]
    assert [note.split(";")[1] for note in found.notes] == [
        " the output has 4, its further rows are of no token",
        " the output has 4, the others come from models with them",
    ]


def test_a_base_that_has_no_rows_for_some_of_its_tokens(family):
    base, one = family(["a", "b", "c"], rows=2), family(["a", "b", "c"], rows=3)
    found = share([base, one])
    assert found.size == 3
    assert first_column(found, base) == [0, 1, 102]


def test_two_tokens_at_one_id(family):
    base, one, two = family(), family(added=["<x>"]), family(added=["<y>"])
    message = r"the id 2 is '<y>' in .*m2 and '<x>' in .*m1\n.*tokenizer_source: union"
    with pytest.raises(CheckpointError, match=message):
        share([base, one, two])
    found = share([base, one, two], compat=True)
    assert found.donor is base
    assert "the id 2 is '<y>'" in found.warnings[0]


def test_one_token_at_two_ids(family):
    base, one, two = family(), family(added=["<x>"]), family(["a", "b", "c"], added=["<x>"])
    with pytest.raises(CheckpointError, match=r"the id 2 is 'c' in .*m2 and '<x>' in .*m1 \(2 such conflicts\)"):
        share([base, one, two])


def test_a_renamed_token_of_the_base(family):
    base, one = family(added=["<spare>"]), family(added=["<think>"])
    with pytest.raises(CheckpointError, match=r"the id 2 is '<think>' in .* and '<spare>' in"):
        share([base, one])


def test_an_expert_that_lost_tokens(family):
    base, one = family(["a", "b", "c"]), family(["a", "b"])
    found = share([base, one])
    assert found.donor is base
    assert found.warnings == ()


def test_nobody_knows_all_tokens(family):
    base, one, two = family(["a"]), family(["a", "b"]), family(["a"])
    path = two.checkpoint.path / "tokenizer.json"
    path.write_text(path.read_text().replace('"a": 0', '"a": 0, "d": 2'))
    two = Member(two.checkpoint, TokenizerReader().read(two.checkpoint.path))
    found = share([base, one, two])
    assert found.donor is base
    assert "lacks 'b', 'd' (tokenizer_source: union would keep them)" in found.warnings[0]


def test_special_tokens_that_experts_agree_on(family):
    base, one, two = family(eos_token="a"), family(eos_token="b"), family(eos_token="b")
    found = share([base, one, two])
    assert found.donor is one
    assert found.taken[0].endswith("m1 (its eos_token is 'b')")
    three = family(eos_token="a")
    assert share([base, one, three]).donor is base
    assert share([base, one, two, three]).donor is base


def test_padding_alone_is_no_other_tokenizer(family):
    base, one, two = family(eos_token="a"), family(eos_token="a", pad_token="b"), family(eos_token="a", pad_token="b")
    found = share([base, one, two])
    assert (found.donor, found.taken) == (base, ())


def test_models_without_a_base_are_equals(family):
    one, two, three = family(eos_token="a"), family(eos_token="b"), family(eos_token="b")
    assert share([one, two, three], has_base=False).donor is one
    assert share([one, family(added=["<x>"])], has_base=False).donor.ids == {"a": 0, "b": 1, "<x>": 2}


def test_some_without_a_tokenizer(family):
    base, one, two = family(()), family(added=["<x>"]), family(added=["<x>"])
    found = share([base, one, two])
    assert found.donor is one
    assert "has no tokenizer; the others' is taken" in found.notes[0]
    assert share([one, base]).donor is one


def test_none_with_a_tokenizer(family):
    base, one = family(()), family(())
    found = share([base, one])
    assert (found.donor, found.size, found.ids) == (base, 4, {})


def test_rows_of_which_nothing_is_known(family):
    base, one = family((), rows=4), family((), rows=5)
    with pytest.raises(
        CheckpointError, match=r"m1: its vocabulary tables have 5 rows, those of .*m0 4, and nothing says"
    ):
        share([base, one])


def opaque(member, content=b"\n\x07x"):
    (member.checkpoint.path / "tokenizer.model").write_bytes(content)
    return Member(member.checkpoint, TokenizerReader().read(member.checkpoint.path))


def test_formats_that_are_not_read_can_be_equal(family):
    base, one = opaque(family(())), opaque(family((), rows=5))
    found = share([base, one])
    assert (found.donor, found.size, found.warnings) == (base, 4, ())
    other = opaque(family(()), b"\n\x07y")
    found = share([base, other])
    assert "cannot be compared with that of" in found.warnings[0]
    assert found.donor is base
    with pytest.raises(CheckpointError, match="nothing says which token"):
        share([base, opaque(family((), rows=5), b"\n\x07y")])


def test_ids_that_contradict_each_other(family):
    def broken(member):
        path = member.checkpoint.path / "tokenizer.json"
        path.write_text(path.read_text().replace('"id": 2', '"id": 3'))
        return Member(member.checkpoint, TokenizerReader().read(member.checkpoint.path))

    base, one, two = family(added=["<x>"]), broken(family(added=["<x>"])), broken(family(added=["<x>", "<y>"]))
    # What loads is the same for all of the first two, and so is the output.
    assert share([base, one]).warnings == ()
    assert "'<x>' is stated to be 3, but loads as 2" in share([one, base]).warnings[0]
    with pytest.raises(CheckpointError, match="is stated to be 3, but loads as 2"):
        share([base, two])


def test_what_a_model_would_miss(family):
    base, one = family(), family(added=["<x>"])
    found = share([base, one])
    assert lost_tokens(found, one) == []
    assert lost_tokens(share([base, family()]), one) == ["<x>"]
