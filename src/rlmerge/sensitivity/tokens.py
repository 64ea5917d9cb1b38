"""From examples to token sequences whose response part is what the loss sees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rlmerge.errors import RequestError
from rlmerge.sensitivity.data import Example, Message, Messages


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """Token ids of one sequence; ``ids[start:]`` is the response, whose log-probability is differentiated."""

    ids: tuple[int, ...]
    start: int
    where: str

    @property
    def tokens(self) -> int:
        """How many tokens are predicted."""
        return len(self.ids) - self.start


@dataclass(frozen=True, slots=True)
class Encoded:
    """Sequences, how many were cut to the length limit, how many had no response left, and how many were drawn."""

    sequences: tuple[TokenSequence, ...]
    truncated: int
    dropped: int
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


def encode_references(tokenizer: Any, examples: Iterable[Example], max_length: int) -> Encoded:
    """Prompts followed by their given responses, cut to ``max_length`` tokens.

    A string response ends with the tokenizer's end-of-sequence token, since that is part of what a policy emits; a chat
    response with the last one its template writes. Of plain text everything but the first token is predicted.
    Raises RequestError for an example without response and when truncation leaves no sequence.
    """
    sequences: list[TokenSequence] = []
    truncated = dropped = 0
    for example in examples:
        ids, start = _with_response(tokenizer, example)
        # The first token has no prediction.
        start = max(start, 1)
        truncated += len(ids) > max_length
        ids = ids[:max_length]
        if len(ids) > start:
            sequences.append(TokenSequence(ids, start, example.where))
        else:
            dropped += 1
    if not sequences:
        raise RequestError(
            f"none of the {dropped} sequences has a response within {max_length} tokens",
            hint="Raise --max-length, or check that the responses are not empty.",
        )
    return Encoded(tuple(sequences), truncated, dropped)


def _with_response(tokenizer: Any, example: Example) -> tuple[tuple[int, ...], int]:
    prompt = encode_prompt(tokenizer, example)
    if example.text:
        return prompt, 0
    if example.response is None:
        hint = "Add responses to the data, or let the model answer with --mode true."
        raise RequestError("an example without response", where=example.where, hint=hint)
    eos = tokenizer.eos_token_id
    if isinstance(example.response, str):
        response = _ids(tokenizer, example.response)
        return prompt + response + (() if eos is None else (eos,)), len(prompt)
    assert not isinstance(example.prompt, str)
    response = _ids(tokenizer, _turn(tokenizer, example.prompt, example.response, example.where))
    # What a template writes after the end of the turn (a newline, often) is never sampled.
    end = len(response) - response[::-1].index(eos) if eos in response else len(response)
    return prompt + response[:end], len(prompt)


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
