from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.errors import RequestError
from rlmerge.evaluate.generate import Sampling, check_prompts, make_generator


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, not 0"),
        ({"samples": -1}, "samples must be at least 1, not -1"),
        ({"temperature": -0.5}, "temperature must be 0 .* not -0.5"),
        ({"temperature": float("nan")}, "temperature must be 0 .* not nan"),
        ({"temperature": float("inf")}, "temperature must be 0 .* not inf"),
    ],
)
def test_sampling_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(RequestError, match=message):
        Sampling(**change)


def test_prompts_are_needed_and_have_some_text():
    check_prompts(["a"])
    with pytest.raises(RequestError, match="there are no prompts"):
        check_prompts([])
    with pytest.raises(RequestError, match="a prompt is empty"):
        check_prompts(["a", ""])


def test_an_unknown_back_end_is_met_with_the_nearest_one():
    with pytest.raises(RequestError, match=r"'transfomers'\n  Did you mean 'transformers'\?"):
        make_generator("transfomers")


def test_a_server_has_a_url_and_no_other_back_end_has_one():
    with pytest.raises(RequestError, match="'server' needs its URL"):
        make_generator("server")
    with pytest.raises(RequestError, match="'tiny' takes no server"):
        make_generator("tiny", server="http://localhost")
    pytest.importorskip("httpx2")
    assert make_generator("server", server="http://localhost/v1/").identity() == {
        "backend": "server",
        "url": "http://localhost/v1",
    }


@given(prompts=st.lists(st.sampled_from(["a", "b", "a\x1f0"]), min_size=1, max_size=6), samples=st.integers(1, 3))
def test_streams_are_all_different_and_a_prompts_own(prompts, samples):
    streams = Sampling(samples=samples, seed=7).streams(prompts)
    assert [len(own) for own in streams] == [samples] * len(prompts)
    assert len(set(chain(*streams))) == len(prompts) * samples
    # Without the first prompt, those of the others stay, but that a repetition of it becomes its first occurrence.
    rest = Sampling(samples=samples, seed=7).streams(prompts[1:])
    assert [own for own, prompt in zip(rest, prompts[1:], strict=True) if prompt != prompts[0]] == [
        own for own, prompt in zip(streams[1:], prompts[1:], strict=True) if prompt != prompts[0]
    ]
    assert not set(chain(*streams)) & set(chain(*Sampling(samples=samples, seed=8).streams(prompts)))
