"""From examples to token sequences whose response part is what the loss sees."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from rlmerge.errors import RequestError
from rlmerge.frozen import frozen
from rlmerge.language.data import Example, Message, Messages


@frozen(slots=True)
class TokenSequence:
    """Token ids of one sequence; ``ids[start:]`` is the response, whose log-probability is differentiated."""

    ids: tuple[int, ...]
    start: int
    where: str

    @property
    def tokens(self) -> int:
        """How many tokens are predicted."""
        return len(self.ids) - self.start


@frozen(slots=True)
class Encoded:
    """Sequences and what became of the examples.

    ``truncated`` were cut to the length limit and ``dropped`` had no response left; ``eos_appended`` of the sequences
    got an end that the data did not write; ``sampled`` responses were drawn.
    """

    sequences: tuple[TokenSequence, ...]
    truncated: int
    dropped: int
    eos_appended: int = 0
    sampled: int = 0


def encode_prompt(tokenizer: Any, example: Example) -> tuple[int, ...]:
    """Token ids a response is to follow: through the chat template for messages, plain for a string."""
    if not isinstance(example.prompt, str):
        return _ids(tokenizer, _render(tokenizer, example.prompt, example.where, opens=True))
    if example.entry is not None and getattr(tokenizer, "chat_template", None):
        messages = ({"role": "user", "content": example.prompt},)
        return _ids(tokenizer, _render(tokenizer, messages, example.where, opens=True))
    ids = tuple(tokenizer(example.prompt)["input_ids"])
    # A tokenizer that closes every text would have the response follow an end of sequence.
    return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids


def encode_text(tokenizer: Any, prompt: str, where: str, *, chat: bool) -> tuple[int, ...]:
    """Token ids of ``prompt`` as it is, or as the user's turn in the chat template, opened for the assistant's.

    RequestError, which names ``where``, when there are none.
    """
    turns = ({"role": "user", "content": prompt},) if chat else prompt
    ids = encode_prompt(tokenizer, Example(where, turns))
    if not ids:
        raise RequestError(f"the prompt {prompt!r} has no tokens", where=where, hint="Give prompts with some text.")
    return ids


def encode_references(
    tokenizer: Any, examples: Iterable[Example], max_length: int, *, ends: Collection[int] = ()
) -> Encoded:
    """Prompts followed by their given responses, cut to ``max_length`` tokens.

    Every sequence ends as a policy ends its output: with the first of ``ends`` (all ids that end one; the tokenizer's
    end of sequence is always among them) that stands there already, and otherwise with the tokenizer's. What a chat
    template writes after the end of a turn is left out, since it is never sampled. Of plain text everything but the
    first token is predicted. RequestError for an example without response and when truncation leaves no sequence.
    """
    eos = tokenizer.eos_token_id
    closing = () if eos is None else (eos,)
    sequences: list[TokenSequence] = []
    truncated = dropped = appended = 0
    for example in examples:
        ids, start = _with_response(tokenizer, example, {*ends, *closing})
        whole = ids if len(ids) > start and ids[-1] in {*ends, *closing} else ids + closing
        # The first token has no prediction.
        start = max(start, 1)
        truncated += len(whole) > max_length
        if min(len(whole), max_length) > start:
            sequences.append(TokenSequence(whole[:max_length], start, example.where))
            appended += len(ids) < len(whole) <= max_length
        else:
            dropped += 1
    if not sequences:
        raise RequestError(
            f"none of the {dropped} sequences has a response within {max_length} tokens",
            hint="Raise --max-length, or check that the responses are not empty.",
        )
    return Encoded(tuple(sequences), truncated, dropped, appended)


def _with_response(tokenizer: Any, example: Example, ends: Collection[int]) -> tuple[tuple[int, ...], int]:
    """Token ids of prompt and response, the end included where the data or the template writes it; and the start."""
    if example.text:
        return tuple(tokenizer(example.prompt)["input_ids"]), 0
    prompt = encode_prompt(tokenizer, example)
    if example.response is None:
        hint = "Add responses to the data, or let the model answer with --mode true."
        raise RequestError("the example has no response", where=example.where, hint=hint)
    if isinstance(example.response, str):
        return prompt + _ids(tokenizer, example.response), len(prompt)
    assert not isinstance(example.prompt, str)
    response = _ids(tokenizer, _turn(tokenizer, example.prompt, example.response, example.where))
    # What a template writes after the end of the turn (a newline, often) is never sampled.
    last = max((place for place, token in enumerate(response) if token in ends), default=len(response))
    return prompt + response[: last + 1], len(prompt)


def _turn(tokenizer: Any, prompt: Messages, response: Message, where: str) -> str:
    """The response as the template writes it after the opened prompt."""
    opened = _render(tokenizer, prompt, where, opens=True)
    whole = _render(tokenizer, (*prompt, response), where, opens=False)
    if not whole.startswith(opened):
        hint = "Apply the template yourself and give prompt and response as strings."
        raise RequestError("the chat template rewrites the prompt once it is answered", where=where, hint=hint)
    return whole[len(opened) :]


def _render(tokenizer: Any, messages: Messages, where: str, *, opens: bool) -> str:
    if not getattr(tokenizer, "chat_template", None):
        hint = "Give prompt and response as strings, or a model whose tokenizer has a chat template."
        raise RequestError("the data is a chat but the model's tokenizer has no chat template", where=where, hint=hint)
    try:
        return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=opens)
    except Exception as error:  # a template is a program of the model's author and raises what it likes
        raise RequestError(f"the chat template refuses these messages: {error}", where=where) from error


def _ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Ids of text that already holds its special tokens."""
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def total_tokens(sequences: Sequence[TokenSequence]) -> int:
    """How many tokens are predicted over all sequences."""
    return sum(sequence.tokens for sequence in sequences)
