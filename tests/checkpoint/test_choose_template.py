import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.chat import Templates
from rlmerge.checkpoint.choose_template import choose_template
from rlmerge.checkpoint.shared import share
from rlmerge.checkpoint.tokenizer import TokenizerReader
from rlmerge.checkpoint.vocabulary import Member
from support.tokenizers import write_tables, write_tokenizer


@pytest.fixture
def choose(tmp_path):
    """What is written, warned of and noted for models with these templates, the base's first."""

    def run(*chats, wish=None, leaders=None):
        members = []
        for k, chat in enumerate(chats):
            folder = write_tokenizer(write_tables(tmp_path / f"m{k}", 2), ["a", "<|b|>"], chat=chat)
            if chat is None:
                (folder / "chat_template.jinja").unlink(missing_ok=True)
            checkpoint = open_checkpoint(str(folder))
            members.append(Member(checkpoint, TokenizerReader().read(checkpoint.side_root)))
        warnings, notes = [], []
        experts = members[1:]
        found = choose_template(share(members), leaders or experts, experts, wish, warnings, notes)
        return found, warnings, notes

    return run


def test_the_same_everywhere_is_left_alone(choose):
    assert choose("x", "x", "x") == (None, [], [])
    assert choose(None, None) == (None, [], [])


def test_what_the_experts_share(choose):
    found, warnings, notes = choose(None, "x", "x")
    assert (found, warnings) == (Templates("x"), [])
    assert " share (" in notes[0] and notes[0].endswith("m0 has none)")
    found, warnings, notes = choose("y", "x")
    assert (found, warnings) == (Templates("x"), [])
    assert "has another" in notes[0]


def test_blanks_at_the_end_are_no_difference(choose):
    assert choose("x\n", "x", " x") == (None, [], [])


def test_experts_without_one_do_not_object(choose):
    assert choose(None, "x", None)[0] == Templates("x")
    assert choose("y", None)[0] is None


def test_no_agreement(choose):
    found, warnings, _ = choose("y", "x", "z")
    assert found is None
    assert len(warnings) == 2 and all("has another chat template than the output, which is" in w for w in warnings)


def test_a_wish(choose):
    assert choose("y", "x", wish="auto")[0] is None
    assert choose("y", "x", "x", wish="auto")[0] == Templates("x")
    assert choose("y", "x", wish=Templates("t"))[0] == Templates("t")
    assert choose("y", "x", wish="chatml")[0].default.startswith("{%- for message")


def test_control_tokens_that_do_not_exist(choose):
    assert choose(None, "<|b|>{{ x }}")[1] == []
    warnings = choose(None, "<|c|><|b|>{{ x }}")[1]
    assert warnings == ["the chat template writes '<|c|>', no token of the output's tokenizer"]
