from collections import Counter
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from rlmerge.errors import CheckpointError, RequestError, RunError  # noqa: E402
from rlmerge.evaluate.generate import Sampling, make_generator  # noqa: E402
from rlmerge.evaluate.generate.tiny import TinyGenerator  # noqa: E402
from rlmerge.evaluate.generate.transformers import TransformersGenerator  # noqa: E402
from support import tiny  # noqa: E402
from support.checkpoints import BASE, PROMPTS, broken  # noqa: E402


@pytest.fixture(scope="module")
def generator():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield TransformersGenerator("cpu", batch_size=5)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def chatty(tmp_path_factory):
    """A random Llama whose own settings would change what is drawn in every way they can."""
    model = tiny.llama()
    settings = model.generation_config
    settings.do_sample, settings.temperature, settings.top_k, settings.top_p = True, 0.01, 1, 0.1
    settings.repetition_penalty, settings.no_repeat_ngram_size, settings.eos_token_id = 5.0, 2, [2, 5]
    return tiny.save(tmp_path_factory.mktemp("chatty"), model, chat=True)


def generate(generator, model, prompts=PROMPTS, **changes):
    return generator.generate(model, prompts, Sampling(**{"max_new_tokens": 8, **changes}))


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_samples_are_those_of_the_numpy_model(generator, temperature):
    # Prompts of different lengths, so rows are padded, and 12 samples in batches of 5. Logits differ by 1e-5 or so,
    # which moves one draw in 100,000; the seed is fixed.
    options = {"temperature": temperature, "samples": 4, "seed": 3}
    assert generate(generator, BASE, **options) == generate(TinyGenerator(), BASE, **options)


def test_draws_from_the_models_own_distribution_whatever_its_sampling_defaults(generator, chatty):
    draws = 4000
    made = generate(TransformersGenerator("cpu", 500), chatty, ["1+1="], samples=draws, max_new_tokens=1)
    found = Counter(sample.tokens[0] for sample in made[0])
    tokenizer = transformers.AutoTokenizer.from_pretrained(chatty)
    model = transformers.AutoModelForCausalLM.from_pretrained(chatty)
    with torch.no_grad():
        expected = torch.softmax(model(**tokenizer("1+1=", return_tensors="pt")).logits[0, -1], 0).tolist()
    for token, probability in enumerate(expected):
        # Five binomial standard deviations: with 32 tokens a false alarm once in 50,000 seeds, and the seed is fixed.
        assert abs(found[token] - draws * probability) <= 5 * (draws * probability * (1 - probability)) ** 0.5


def test_all_ends_of_the_model_end_an_output(generator, chatty):
    samples = generate(generator, chatty, ["1+1="], samples=60, max_new_tokens=12)[0]
    assert {sample.tokens[-1] for sample in samples if sample.stopped} == {2, 5}
    assert all(not {2, 5} & set(sample.tokens[:-1]) for sample in samples)
    # 5 is the character 2, no special token; the token that ends an output is no part of its text.
    assert tiny.VOCABULARY[5] == "2" and all("2" not in sample.text for sample in samples)


def test_chat_puts_the_prompt_into_the_users_turn(generator, chatty):
    asked = generate(generator, chatty, ["abc"], chat=True, temperature=0.0)[0][0]
    # What the template of the test models writes around the prompt: "u " before it, but "u" is unknown to them.
    ids = [tiny.VOCABULARY.index(token) for token in ("<s>", *"? abc", "</s>", *"  ", "<s>", *"a ")]
    model = transformers.AutoModelForCausalLM.from_pretrained(chatty)
    with torch.no_grad():
        assert asked.tokens[0] == int(model(torch.tensor([ids])).logits[0, -1].argmax())
    with pytest.raises(RequestError, match="has no chat template"):
        generate(generator, BASE, chat=True)


def test_the_model_is_loaded_again_when_its_files_change(generator, tmp_path):
    model = tiny.save(tmp_path, tiny.llama())
    before = generate(generator, model, ["1+1="], samples=8)
    other = tiny.llama()
    with torch.no_grad():
        other.lm_head.weight.mul_(-3)
    other.save_pretrained(model)
    assert generate(generator, model, ["1+1="], samples=8) != before


def test_no_gpu_is_said_so():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(RequestError, match="cannot use device 'cuda'"):
        make_generator("transformers", device="cuda")
    assert make_generator("transformers").identity()["device"] == "cpu"


def test_bad_input_is_refused(generator, tmp_path):
    with pytest.raises(RequestError, match="batch_size must be at least 1, not 0"):
        TransformersGenerator("cpu", 0)
    with pytest.raises(CheckpointError, match="transformers cannot load it"):
        generate(generator, tmp_path)
    with pytest.raises(RunError, match="logits are NaN") as error:
        generate(generator, broken(tmp_path / "nan"))
    assert Path(error.value.where).name == "nan"
