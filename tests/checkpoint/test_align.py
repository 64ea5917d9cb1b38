"""Vocabularies aligned by token text, from the rules: output tokens, then a row of every model for each of them."""

import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.align import align
from rlmerge.checkpoint.picked_rows import PickedRows
from rlmerge.checkpoint.token_table import AddedToken
from rlmerge.checkpoint.tokenizer import TokenizerReader
from rlmerge.checkpoint.vocabulary import Member, ModelToken, TokenizerSpec, TokenSpec
from rlmerge.errors import CheckpointError, RequestError
from support.models import CONFIG, write_model
from support.tokenizers import write_tables, write_tokenizer

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def family(tmp_path):
    """Make a model of ``rows`` rows with a tokenizer; row i of model m holds 100 m + i and 100 m + i + ½."""
    made = []

    def make(tokens, added=(), rows=None, **config):
        number = len(made)
        folder = tmp_path / f"m{number}"
        rows = len(tokens) + len(added) if rows is None else rows
        write_tables(folder, rows, start=100.0 * number, **config)
        if tokens:
            write_tokenizer(folder, tokens, added)
        checkpoint = open_checkpoint(folder)
        made.append(Member(checkpoint, TokenizerReader().read(checkpoint.side_root)))
        return made[-1]

    return make


def plan(members, source="union", *, compat=False, pad=None, **tokens):
    model = source if isinstance(source, str) else source.checkpoint
    return align(members, TokenizerSpec(model, tokens, pad), compat=compat)


def first_column(vocabulary, member, name=EMBED):
    """A member's table in the rows of the output, by its first column."""
    source = vocabulary.tensors(member.checkpoint)[name]
    return source.read().reshape(-1, 2)[:, 0].tolist()


def test_a_union(family):
    base = family(["a", "b"], ["<x>"])
    one = family(["b", "a", "c"], ["<y>", "<x>"])
    two = family(["d", "c"], ["<y>"])
    found = plan([base, one, two])
    # The base's, then ordinary tokens in the order of the models and their ids, then added ones.
    assert found.ids == {"a": 0, "b": 1, "<x>": 2, "c": 3, "d": 4, "<y>": 5}
    assert [(token, id) for token, id in found.appended] == [
        (AddedToken("c"), 3), (AddedToken("d"), 4), (AddedToken("<y>", special=True), 5),
    ]  # fmt: skip
    assert (found.size, found.tokens, found.donor) == (6, 6, base)
    # c: one has row 102, two has 201, the base gets their mean; d: only two has it (200); <y>: 103 and 202.
    assert first_column(found, base) == [0, 1, 2, 151.5, 200, 152.5]
    assert first_column(found, one) == [101, 100, 104, 102, 200, 103]
    assert first_column(found, two) == [0, 1, 2, 201, 200, 202]
    assert first_column(found, two, HEAD) == [0, -1, -2, -201, -200, -202]
    assert "2 ordinary tokens of other models, such as 'c', become added tokens" in found.warnings[0]


def test_a_token_that_one_expert_has_moves_by_nothing(family):
    base, one, two = family(["a"]), family(["a"], ["<x>"]), family(["a"])
    found = plan([base, one, two])
    columns = [first_column(found, member)[1] for member in (base, one, two)]
    assert columns == [101, 101, 101]


def test_a_token_that_an_expert_lacks_is_the_bases(family):
    base, one, two = family(["a", "b"]), family(["a"]), family(["b", "a"])
    found = plan([base, one, two], "base")
    assert first_column(found, one) == [100, 1]
    assert first_column(found, two) == [201, 200]


def test_the_bases_tokenizer(family):
    base, one = family(["a", "b"]), family(["b", "c", "a"])
    found = plan([base, one], "base")
    assert (found.ids, found.size, found.appended) == ({"a": 0, "b": 1}, 2, ())
    assert first_column(found, one) == [102, 100]
    assert found.tensors(base.checkpoint)[EMBED] is base.checkpoint.tensors[EMBED]


def test_another_models_tokenizer(family):
    base, one = family(["a", "b", "z"]), family(["b", "c", "a"])
    found = plan([base, one], one)
    assert (found.ids, found.donor, found.size) == ({"b": 0, "c": 1, "a": 2}, one, 3)
    assert first_column(found, base) == [1, 101, 0]
    assert found.tensors(one.checkpoint)[EMBED] is one.checkpoint.tensors[EMBED]


def test_a_model_that_is_not_merged_lends_its_tokenizer_and_rows(family):
    base, one, chat = family(["a"]), family(["a"]), family(["a"], ["<end>"])
    found = plan([base, one, chat], chat)
    assert found.ids == {"a": 0, "<end>": 1}
    assert first_column(found, base) == [0, 201]
    assert first_column(found, one) == [100, 201]


def test_the_bases_padding_stays_where_the_vocabulary_is_its_own(family):
    base, one, two = family(["a", "b"], rows=5), family(["b", "a"], rows=5), family(["a", "b"], rows=3)
    found = plan([base, one, two], "base")
    assert (found.size, found.tokens, found.kept) == (5, 2, True)
    assert first_column(found, base) == [0, 1, 2, 3, 4]
    assert first_column(found, one) == [101, 100, 102, 103, 104]
    # Where a model has no such row it gets the base's, so that nothing changes there.
    assert first_column(found, two) == [200, 201, 202, 3, 4]


def test_mergekit_cuts_the_padding(family):
    base, one = family(["a", "b"], rows=5), family(["b", "a"], rows=5)
    found = plan([base, one], "base", compat=True)
    assert found.size == 2
    assert first_column(found, base) == [0, 1]


def test_new_tokens_that_fit_into_common_padding(family):
    base, one = family(["a"], rows=4), family(["a"], ["<x>", "<y>"], rows=4)
    for source in ("union", one):
        found = plan([base, one], source)
        assert (found.size, found.ids) == (4, {"a": 0, "<x>": 1, "<y>": 2})
        assert first_column(found, one) == [100, 101, 102, 103]
        # The base's own rows 1 and 2 belong to no token of its, row 3 to none of the output's.
        assert first_column(found, base) == [0, 101, 102, 3]


def test_tokens_decide_the_rows_where_models_have_different_numbers(family):
    base, one = family(["a"], rows=2), family(["a"], ["<x>", "<y>"], rows=8)
    assert plan([base, one]).size == 3
    assert plan([base, one], one).size == 3


def test_rows_are_rounded_up_with_the_mean_of_each_model(family):
    base, one = family(["a", "b"], rows=2), family(["a", "c"], rows=2)
    found = plan([base, one], pad=4)
    assert (found.size, found.tokens, found.kept) == (4, 3, False)
    # base: a 0, b 1, c 101 from one; one: a 100, b 1 from the base, c 101
    assert first_column(found, base) == [0, 1, 101, 34]
    assert first_column(found, one) == pytest.approx([100, 1, 101, 202 / 3], rel=1e-7)  # one step of float32
    assert found.tensors(base.checkpoint)[EMBED].nominal.name == "float32"


def test_rounding_up_to_the_rows_that_are_there_keeps_them(family):
    base, one = family(["a", "b"], rows=4), family(["b", "a"], rows=4)
    found = plan([base, one], "base", pad=4)
    assert (found.size, found.kept) == (4, True)
    assert first_column(found, base) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("wish", "base_row", "one_row"),
    [
        (TokenSpec("zero"), 0, 101),
        (TokenSpec("zero", force=True), 0, 0),
        (TokenSpec(None, force=True), 101, 101),
        (TokenSpec(None), 101, 101),
    ],
)
def test_a_token_with_a_source(family, wish, base_row, one_row):
    base, one = family(["a"]), family(["a"], ["<x>"])
    found = plan([base, one], **{"<x>": wish})
    assert first_column(found, base)[1] == base_row
    assert first_column(found, one)[1] == one_row


def test_a_token_takes_the_row_of_a_model_a_token_or_a_number(family):
    base, one, two = family(["a", "b"]), family(["b"], ["<x>"]), family(["a", "c"], ["<x>"])
    wishes = {
        "<x>": TokenSpec(ModelToken(two.checkpoint)),
        "b": TokenSpec(ModelToken(two.checkpoint, token="c"), force=True),
        "new": TokenSpec(ModelToken(base.checkpoint, id=1)),
    }
    found = plan([base, one, two], **wishes)
    assert found.ids == {"a": 0, "b": 1, "c": 2, "<x>": 3, "new": 4}
    assert found.appended[-1] == (AddedToken("new"), 4)
    # c is only in two; <x> is two's 202 where a model lacks it; b is two's row of c in all of them.
    assert first_column(found, base) == [0, 201, 201, 202, 1]
    assert first_column(found, one) == [0, 201, 201, 101, 1]
    assert first_column(found, two) == [200, 201, 201, 202, 1]


def test_a_mean_of_two_owners_forced_on_all(family):
    base, one, two = family(["a"]), family(["a"], ["<x>"]), family(["a"], ["<x>"])
    found = plan([base, one, two], **{"<x>": TokenSpec(force=True)})
    assert [first_column(found, member)[1] for member in (base, one, two)] == [151, 151, 151]


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"<q>": TokenSpec()}, "no model has the token '<q>'"),
        ({"<x>": TokenSpec(ModelToken(0))}, "m0 has no token '<x>'"),
        ({"a": TokenSpec(ModelToken(1, token="<z>"))}, r"m1 has no token '<z>'(?s:.*)Did you mean '<x>'"),
        ({"a": TokenSpec(ModelToken(1, id=2))}, "m1 has 2 rows, and none of number 2"),
        ({"a": TokenSpec(ModelToken(1, id=-1))}, "none of number -1"),
    ],
)
def test_tokens_and_rows_that_are_not_there(family, wishes, message):
    members = [family(["a"]), family(["a"], ["<x>"])]
    for token, wish in wishes.items():
        if wish.source is not None:
            model = members[wish.source.model].checkpoint
            wishes[token] = TokenSpec(ModelToken(model, wish.source.token, wish.source.id))
    with pytest.raises(RequestError, match=message):
        plan(members, **wishes)


def test_tokens_without_a_row(family):
    base, one = family(["a", "b", "c"], rows=2), family(["a", "b", "c"], rows=3)
    # The base's vocabulary has no row for c; a union gives it the other model's.
    found = plan([base, one], "base")
    assert (found.size, found.warnings) == (2, ())
    found = plan([base, one])
    assert first_column(found, base) == [0, 1, 102]
    alone = plan([base])
    assert first_column(alone, base) == [0, 1, 0]
    assert alone.warnings == ("no model has a row for 'c'; the output has zeros there",)


def test_a_union_leaves_tokens_without_any_row_out(family):
    base, one, two = family(["a"]), family(["a", "b"], ["<x>", "<y>"], rows=2), family(["a"], ["<y>"])
    found = plan([base, one, two])
    # one names <x> and <y> beyond its rows; two has a row for <y>.
    assert found.ids == {"a": 0, "b": 1, "<y>": 2}
    assert first_column(found, one) == [100, 101, 201]


def test_flags_of_added_tokens(family, tmp_path):
    base, one, two = family(["a"]), family(["a"], ["<x>"]), family(["a"], ["<x>"])
    path = two.checkpoint.path / "tokenizer.json"
    path.write_text(path.read_text().replace('"lstrip": false', '"lstrip": true'))
    two = Member(two.checkpoint, TokenizerReader().read(two.checkpoint.path))
    found = plan([base, one, two])
    assert found.appended == ((AddedToken("<x>", special=True), 1),)
    assert found.warnings == ("models differ in how they match '<x>'; the first definition is taken",)


def test_a_model_without_a_tokenizer_is_taken_to_have_the_bases(family):
    base, one, two = family(["a", "b"]), family([], rows=2), family(["b", "a"])
    found = plan([base, one, two], two)
    assert first_column(found, one) == [101, 100]
    assert "m1 has no tokenizer; its rows are taken to be those of" in found.warnings[0]


def test_a_tied_models_embedding_is_its_head(family):
    base, one = family(["a"]), family(["a"], ["<x>"], tied=True)
    found = plan([base, one])
    assert first_column(found, base) == [0, 101]
    assert first_column(found, base, HEAD) == [0, 101]
    assert HEAD not in found.tensors(one.checkpoint)


def test_tables_of_another_width_are_left_to_the_comparison_of_shapes(family, tmp_path):
    base = family(["a", "b"])
    folder = tmp_path / "wide"
    write_model(folder, {EMBED: np.ones((2, 3)), HEAD: np.ones((2, 3))}, config={**CONFIG, "vocab_size": 2})
    write_tokenizer(folder, ["b", "a"])
    wide = Member(open_checkpoint(folder), TokenizerReader().read(folder.resolve()))
    found = plan([base, wide], "base")
    assert found.tensors(wide.checkpoint)[EMBED].shape == (2, 3)


def test_sixteen_bit_tables_stay_copies_of_bits(family):
    base, one = family(["a", "b"], dtype="bfloat16"), family(["b", "a"], ["<x>"], dtype="bfloat16")
    found = plan([base, one])
    for member in (base, one):
        source = found.tensors(member.checkpoint)[EMBED]
        assert isinstance(source, PickedRows)
        assert source.dtype.name == "bfloat16"


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 2, 1]])
def test_ids_depend_on_the_order_of_the_models_alone(family, order):
    made = [family(["a"]), family(["a", "q", "c"], ["<y>"]), family(["z", "c", "b"], ["<x>"])]
    tokens = [plan([made[i] for i in order]).ids for _ in range(2)]
    assert tokens[0] == tokens[1]
    names = ["q", "c", "z", "b", "<y>", "<x>"] if order[1] == 1 else ["z", "c", "b", "q", "<x>", "<y>"]
    assert list(tokens[0]) == ["a", *names]


def test_a_base_without_a_tokenizer(family):
    with pytest.raises(CheckpointError, match="has no tokenizer to align vocabularies by"):
        plan([family([], rows=2), family(["a"])])


def test_a_source_without_a_tokenizer(family):
    base, one = family(["a"]), family([], rows=1)
    with pytest.raises(CheckpointError, match=r"m1: has no tokenizer for the output"):
        plan([base, one], one)


def test_tokens_in_a_format_that_is_not_read(family):
    base, one = family(["a"]), family([], rows=1)
    (one.checkpoint.path / "tokenizer.model").write_bytes(b"\n\x07x")
    one = Member(one.checkpoint, TokenizerReader().read(one.checkpoint.path))
    with pytest.raises(CheckpointError, match=r"keeps its tokens in tokenizer\.model(?s:.*)save_pretrained"):
        plan([base, one])


def test_no_tokenizer_json_to_add_to(family):
    base, one = family([], rows=2), family(["a", "b", "c"])
    (base.checkpoint.path / "vocab.json").write_text('{"a": 0, "b": 1}')
    base = Member(base.checkpoint, TokenizerReader().read(base.checkpoint.path))
    assert plan([base, one], "base").ids == {"a": 0, "b": 1}
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json, to which 'c' could be added"):
        plan([base, one])


def broken(member, vocabulary):
    path = member.checkpoint.path / "tokenizer.json"
    path.write_text(path.read_text().replace('"a": 0', vocabulary))
    return Member(member.checkpoint, TokenizerReader().read(member.checkpoint.path))


def test_ids_with_gaps_cannot_be_added_to(family):
    base, one = broken(family(["a"], rows=8), '"a": 7'), family(["a"], ["<x>"])
    with pytest.raises(CheckpointError, match="ids have gaps below 8, so that no token can be added"):
        plan([base, one])
    assert first_column(plan([base, one], "base"), one) == [0, 1, 2, 3, 4, 5, 6, 100]


def test_one_id_with_two_tokens(family):
    base, one = family(["a"]), broken(family(["a"], rows=2), '"b": 0, "a": 0')
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: the id 0 belongs to two tokens, 'b' and 'a'"):
        plan([base, one])
    same = broken(family(["a"]), '"b": 0, "a": 0')
    assert "the id 0 belongs to two tokens" in plan([same, one], "base").warnings[0]


def test_a_large_permutation_against_numpy(tmp_path):
    rng = np.random.default_rng(3)
    names = [f"t{i}" for i in range(400)]
    values, ids = [], []
    members = []
    for k in range(3):
        chosen = [names[i] for i in rng.permutation(400)[: 300 - 20 * k]]
        table = rng.standard_normal((len(chosen) + 7, 5)).astype(np.float32)
        folder = tmp_path / f"m{k}"
        write_model(folder, {EMBED: table}, config={**CONFIG, "vocab_size": len(table)})
        write_tokenizer(folder, chosen)
        checkpoint = open_checkpoint(folder)
        members.append(Member(checkpoint, TokenizerReader().read(checkpoint.side_root)))
        values.append(table)
        ids.append({token: i for i, token in enumerate(chosen)})
    found = plan(members)
    for k, member in enumerate(members):
        expected = np.zeros((found.size, 5), np.float32)
        for token, place in found.ids.items():
            owners = [j for j in (1, 2) if token in ids[j]]
            if token in ids[k]:
                expected[place] = values[k][ids[k][token]]
            elif token in ids[0]:
                expected[place] = values[0][ids[0][token]]
            else:
                rows = [values[j][ids[j][token]] for j in owners]
                expected[place] = rows[0] if len(rows) == 1 else (rows[0] + rows[1]) / np.float32(2)
        got = found.tensors(member.checkpoint)[EMBED].read().reshape(found.size, 5)
        assert got.tobytes() == expected.tobytes()
