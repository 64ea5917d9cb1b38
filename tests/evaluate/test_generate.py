from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.errors import RequestError, RunError
from rlmerge.evaluate.generate import check_request, make_generator, random_streams, refuse_undefined


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": []}, "there are no prompts"),
        ({"prompts": ["a", ""]}, "a prompt is empty"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"samples": -1}, "samples is -1"),
        ({"temperature": -0.5}, "the temperature is -0.5"),
        ({"temperature": float("nan")}, "the temperature is nan"),
        ({"temperature": float("inf")}, "the temperature is inf"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(change, message):
    right = {"prompts": ["a"], "max_new_tokens": 1, "temperature": 0.0, "samples": 1}
    check_request(**right)
    with pytest.raises(RequestError, match=message):
        check_request(**{**right, **change})


def test_an_unknown_back_end_is_met_with_the_nearest_one():
    with pytest.raises(RequestError, match=r"'transfomers'\n  Did you mean 'transformers'\?"):
        make_generator("transfomers")


def test_a_server_has_a_url_and_no_other_back_end_has_one():
    with pytest.raises(RequestError, match="'server' needs its URL"):
        make_generator("server")
    with pytest.raises(RequestError, match="'tiny' takes no server"):
        make_generator("tiny", server="http://localhost")
    assert make_generator("server", server="http://localhost/v1/").identity() == {
        "backend": "server",
        "url": "http://localhost/v1",
    }


@given(prompts=st.lists(st.sampled_from(["a", "b", "a\x1f0"]), min_size=1, max_size=6), samples=st.integers(1, 3))
def test_streams_are_all_different_and_a_prompts_own(prompts, samples):
    streams = random_streams(prompts, samples, 7)
    assert [len(own) for own in streams] == [samples] * len(prompts)
    assert len(set(chain(*streams))) == len(prompts) * samples
    # Without the first prompt, those of the others stay, but that a repetition of it becomes its first occurrence.
    rest = random_streams(prompts[1:], samples, 7)
    assert [own for own, prompt in zip(rest, prompts[1:], strict=True) if prompt != prompts[0]] == [
        own for own, prompt in zip(streams[1:], prompts[1:], strict=True) if prompt != prompts[0]
    ]
    assert not set(chain(*streams)) & set(chain(*random_streams(prompts, samples, 8)))


def test_logits_that_are_undefined_name_the_model(tmp_path):
    refuse_undefined(False, tmp_path)
    with pytest.raises(RunError, match="logits are NaN") as error:
        refuse_undefined(True, tmp_path)
    assert error.value.where == str(tmp_path)
