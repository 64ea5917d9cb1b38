"""Outputs from an OpenAI-compatible server, over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rlmerge.errors import RequestError, RlmergeError, RunError, did_you_mean
from rlmerge.evaluate.generate import Sample, check_request, random_streams

KEY_VARIABLE = "RLMERGE_SERVER_KEY"
"""Environment variable that holds the server's key; a command line would show it to every user of the machine."""

_PASSING = (408, 409, 425, 429, 500, 502, 503, 504)
"""Statuses that may not come again."""

_LONGEST_WAIT = 60.0


class ServerGenerator:
    """One request for each sample, several at a time.

    A model is asked for under the name the server lists it by: its path, or the name of its directory. Samples have no
    token ids. Whether equal seeds give equal outputs is up to the server.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 600.0,
        attempts: int = 5,
        parallel: int = 8,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise RequestError(f"{url!r} is no URL of a server", hint="Use, for example, http://localhost:8000/v1.")
        if urlsplit(url).username is not None:
            hint = f"Leave the password out and set the environment variable {KEY_VARIABLE}."
            raise RequestError("the server's URL holds a password", hint=hint)
        self._root = url.rstrip("/")
        self._timeout, self._attempts, self._parallel, self._sleep = timeout, attempts, parallel, sleep
        # Redirects are not followed: they would carry the key to another host.
        self._opener = urllib.request.build_opener(_NoRedirect)

    def identity(self) -> Mapping[str, Any]:
        return {"backend": "server", "url": self._root}

    def generate(
        self,
        model: Path,
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        temperature: float,
        samples: int,
        seed: int,
        chat: bool,
    ) -> list[list[Sample]]:
        check_request(prompts, max_new_tokens, temperature, samples)
        common = {"model": self._served(model), "max_tokens": max_new_tokens, "temperature": temperature, "top_p": 1.0}

        def ask(prompt: str, key: tuple[int, int]) -> Sample:
            asked = {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
            # 31 bits: several servers keep the seed in a signed integer.
            body = {**common, **asked, "seed": key[0] >> 1}
            text, stopped = _read_choice(
                self._call("chat/completions" if chat else "completions", body), chat, self._root
            )
            return Sample(prompt, text, (), stopped)

        keys = random_streams(prompts, samples, seed)
        pool = ThreadPoolExecutor(self._parallel)
        try:
            asked = [[pool.submit(ask, prompt, key) for key in own] for prompt, own in zip(prompts, keys, strict=True)]
            return [[future.result() for future in row] for row in asked]
        finally:
            pool.shutdown(cancel_futures=True)

    def close(self) -> None: ...

    def _served(self, model: Path) -> str:
        """The name under which the server lists ``model``; RequestError when it serves others only."""
        listed = self._call("models", None)
        try:
            names = [str(entry["id"]) for entry in listed["data"]]
        except (KeyError, TypeError) as error:
            raise _unexpected(listed, self._root) from error
        wanted = (str(model), str(model.resolve()), model.resolve().name)
        found = next((name for name in wanted if name in names), None)
        if found is None:
            hint = f"{did_you_mean(wanted[-1], names)} Start the server with --served-model-name {wanted[-1]}."
            raise RequestError(f"the server does not serve '{wanted[-1]}'", where=self._root, hint=hint)
        return found

    def _call(self, path: str, body: Mapping[str, Any] | None) -> Any:
        """The JSON answer to one request, which is repeated while its failure may pass."""
        wait = 1.0
        for attempt in range(1, self._attempts + 1):
            try:
                return self._send(path, body)
            except urllib.error.HTTPError as error:
                failure, asked_wait = self._refused(error), _retry_after(error)
                if error.code not in _PASSING:
                    raise failure from error
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", None) or error
                hint = "Is it running, and is the URL right? Start it, then run the same command again."
                failure, asked_wait = (
                    RunError(f"the server does not answer: {reason}", where=self._root, hint=hint),
                    None,
                )
            if attempt == self._attempts:
                raise failure
            self._sleep(min(asked_wait or wait, _LONGEST_WAIT))
            wait *= 2
        raise AssertionError("at least one attempt is made")

    def _send(self, path: str, body: Mapping[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._root}/{path}", data, headers)
        with self._opener.open(request, timeout=self._timeout) as response:
            content = response.read()
        try:
            return json.loads(content)
        except ValueError as error:
            raise _unexpected(content.decode(errors="replace"), self._root) from error

    def _silent(self, error: Exception) -> RunError:
        reason = getattr(error, "reason", None) or error
        hint = "Is it running, and is the URL right? Start it, then run the same command again."
        return RunError(f"the server does not answer: {reason}", where=self._root, hint=hint)

    def _refused(self, error: urllib.error.HTTPError) -> RlmergeError:
        said = error.read(2000).decode(errors="replace").strip() or error.reason
        what, where = f"the server answers {error.code}: {said}", self._root
        if error.code in _PASSING:
            return RunError(what, where=where, hint="Run the same command again once the server has recovered.")
        if error.code in (401, 403):
            return RequestError(what, where=where, hint=f"Set the environment variable {KEY_VARIABLE} to its key.")
        if error.code == 404:
            return RequestError(what, where=where, hint="The URL of most servers ends in /v1.")
        return RequestError(what, where=where, hint="Correct what the server complains about.")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _read_choice(answer: Any, chat: bool, where: str) -> tuple[str, bool]:
    """Text of the first choice, and whether it ended by itself."""
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"] if chat else choice["text"]
        return str(text or ""), choice["finish_reason"] != "length"
    except (KeyError, IndexError, TypeError) as error:
        raise _unexpected(answer, where) from error


def _unexpected(answer: Any, where: str) -> RunError:
    hint = "It must speak the OpenAI API: /v1/models, /v1/completions, /v1/chat/completions."
    return RunError(f"the server's answer is not understood: {str(answer)[:300]!r}", where=where, hint=hint)


def _retry_after(error: urllib.error.HTTPError) -> float | None:
    """Seconds the server asks to wait; None where it names none, or a date."""
    try:
        return float(error.headers.get("Retry-After", ""))
    except ValueError:
        return None
