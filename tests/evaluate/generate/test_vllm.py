"""Against a stand-in for the package vLLM, in the process that the generator starts for it."""

import importlib.util
import os
import textwrap
from dataclasses import replace

import pytest

pytest.importorskip("transformers")

from rlmerge.errors import RequestError, RunError
from rlmerge.evaluate.generate import Sample, Sampling, make_generator
from support.checkpoints import BASE

SAMPLING = Sampling(max_new_tokens=8)

STAND_IN = """
    import os
    from dataclasses import dataclass
    from types import SimpleNamespace

    @dataclass
    class SamplingParams:
        temperature: float
        max_tokens: int
        seed: int

    class LLM:
        def __init__(self, model, max_model_len):
            print("vLLM prints to standard output")
            os.system("echo and so do its kernels")
            with open(os.environ["STARTS"], "a") as file:
                file.write(f"{os.path.basename(model)} {max_model_len} {os.getpid()}\\n")

        def generate(self, prompts, settings, use_tqdm):
            for prompt, setting in zip(prompts, settings, strict=True):
                ids = prompt["prompt_token_ids"]
                if len(ids) == 13:
                    raise RuntimeError("CUDA out of memory")
                reason = "stop" if setting.max_tokens > 4 else "length"
                text = f"{len(ids)} {setting.temperature} {setting.max_tokens}"
                made = SimpleNamespace(text=text, token_ids=[setting.seed % 2, 1], finish_reason=reason)
                yield SimpleNamespace(outputs=[made])
"""


@pytest.fixture
def starts(tmp_path, monkeypatch):
    if importlib.util.find_spec("vllm") is not None:
        pytest.skip("the real vLLM is installed")
    (tmp_path / "vllm.py").write_text(textwrap.dedent(STAND_IN))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH")))))
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))
    return lambda: [line.split() for line in (tmp_path / "starts").read_text().splitlines()]


def test_it_says_so_when_it_is_not_installed():
    if importlib.util.find_spec("vllm") is not None:
        pytest.skip("vLLM is installed")
    with pytest.raises(RequestError, match=r"'vllm', which is not installed\n  pip install vllm"):
        make_generator("vllm")


def test_one_process_answers_for_a_model_until_another_is_asked_for(starts):
    generator = make_generator("vllm")
    try:
        prompts = ["Rabc=", "A1+1="]
        made = generator.generate(BASE, prompts, replace(SAMPLING, samples=3))
        assert [[sample.text for sample in row] for row in made] == [["5 1.0 8"] * 3] * 2
        assert all(
            sample.stopped and sample.prompt == p
            for row, p in zip(made, ["Rabc=", "A1+1="], strict=True)
            for sample in row
        )
        assert {sample.tokens for row in made for sample in row} == {(0, 1), (1, 1)}
        short = generator.generate(BASE, ["R="], replace(SAMPLING, max_new_tokens=3, temperature=0.0))
        assert short == [[Sample("R=", "2 0.0 3", short[0][0].tokens, False)]]
        assert [start[:2] for start in starts()] == [["base", "13"]]
        # More room than the running engine was given needs a new one, and so does another model.
        generator.generate(BASE, ["Rabcd="], SAMPLING)
        generator.generate(BASE.parent / "rl-rev", ["R="], SAMPLING)
        assert [start[:2] for start in starts()] == [["base", "13"], ["base", "14"], ["rl-rev", "10"]]
    finally:
        generator.close()
    for *_, process in starts():
        with pytest.raises(ProcessLookupError):
            os.kill(int(process), 0)


def test_a_failure_shows_the_end_of_what_vllm_printed(starts):
    generator = make_generator("vllm")
    with pytest.raises(RunError, match=r"ended with status 1:(?s:.*)CUDA out of memory") as error:
        generator.generate(BASE, ["123456789abcd"], SAMPLING)
    assert "and so do its kernels" in str(error.value)
    generator.close()
