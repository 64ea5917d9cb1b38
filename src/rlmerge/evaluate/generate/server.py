"""Outputs from an OpenAI-compatible server, over HTTP (extra ``server``)."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rlmerge.errors import RequestError, RlmergeError, RunError, did_you_mean
from rlmerge.evaluate.generate import Sample, Sampling, check_prompts
from rlmerge.extras import require

KEY_VARIABLE = "RLMERGE_SERVER_KEY"
"""Environment variable that holds the server's key; a command line would show it to every user of the machine."""

MAX_ANSWER = 64 * 2**20
"""Bytes of one answer beyond which it is not read."""

_TRANSIENT = (408, 409, 425, 429, 500, 502, 503, 504)
"""Statuses that may not come again."""

_LONGEST_WAIT = 60.0


class ServerGenerator:
    """One request for each sample, several at a time.

    A model is asked for under the name the server lists it by: its path, or the name of its directory. Samples have no
    token ids. Whether equal seeds give equal outputs is up to the server. A request may take ``timeout`` seconds in
    all, however slowly its answer drips, and is made up to ``attempts`` times while its failure may pass.
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
        if not _is_url(url):
            hint = "Use, for example, http://localhost:8000/v1."
            raise RequestError(f"{url!r} cannot be the URL of a server", hint=hint)
        if urlsplit(url).username is not None:
            hint = f"Leave the password out and set the environment variable {KEY_VARIABLE}."
            raise RequestError("the server's URL holds a password", hint=hint)
        self._http = require("httpx2")
        self._root = url.rstrip("/")
        self._timeout, self._attempts, self._parallel, self._sleep = timeout, attempts, parallel, sleep

    def identity(self) -> Mapping[str, Any]:
        return {"backend": "server", "url": self._root}

    def generate(self, model: Path, prompts: Sequence[str], sampling: Sampling) -> list[list[Sample]]:
        check_prompts(prompts)
        limits = self._http.Limits(max_connections=self._parallel)
        # Redirects are not followed: they would carry the key to another host.
        with self._http.Client(timeout=self._timeout, limits=limits, follow_redirects=False) as client:
            common = {
                "model": self._served(client, model),
                "max_tokens": sampling.max_new_tokens,
                "temperature": sampling.temperature,
                "top_p": 1.0,
            }

            def ask(prompt: str, key: tuple[int, int]) -> Sample:
                asked = {"messages": [{"role": "user", "content": prompt}]} if sampling.chat else {"prompt": prompt}
                # 31 bits: several servers keep the seed in a signed integer.
                body = {**common, **asked, "seed": key[0] >> 1}
                answer = self._call(client, "chat/completions" if sampling.chat else "completions", body)
                return Sample(prompt, *self._read_choice(answer, sampling.chat))

            pool = ThreadPoolExecutor(self._parallel)
            try:
                asked = [
                    [pool.submit(ask, prompt, key) for key in own]
                    for prompt, own in zip(prompts, sampling.streams(prompts), strict=True)
                ]
                return [[future.result() for future in row] for row in asked]
            finally:
                pool.shutdown(cancel_futures=True)

    def close(self) -> None: ...

    def _served(self, client: Any, model: Path) -> str:
        """The name under which the server lists ``model``; RequestError when it serves others only."""
        listed = self._call(client, "models", None)
        try:
            names = [str(entry["id"]) for entry in listed["data"]]
        except (KeyError, TypeError) as error:
            raise self._not_understood(listed) from error
        wanted = (str(model), str(model.resolve()), model.resolve().name)
        found = next((name for name in wanted if name in names), None)
        if found is None:
            hint = f"{did_you_mean(wanted[-1], names)} Start the server with --served-model-name {wanted[-1]}."
            raise RequestError(f"the server does not serve '{wanted[-1]}'", where=self._root, hint=hint)
        return found

    def _call(self, client: Any, path: str, body: Mapping[str, Any] | None) -> Any:
        """The JSON answer to one request, which is repeated while its failure may pass."""
        wait = 1.0
        for attempt in range(1, self._attempts + 1):
            asked_wait = None
            try:
                status, headers, content = self._send(client, path, body)
                if 200 <= status < 300:
                    return self._parse(content)
                failure, asked_wait = self._refused(status, content), _retry_after(headers.get("Retry-After"))
                if status not in _TRANSIENT:
                    raise failure
            except (self._http.HTTPError, self._http.InvalidURL) as error:
                reason = str(error) or type(error).__name__
                hint = "Is it running, and is the URL right? Start it, then run the same command again."
                failure = RunError(f"the server does not answer: {reason}", where=self._root, hint=hint)
            if attempt == self._attempts:
                raise failure
            self._sleep(min(asked_wait or wait, _LONGEST_WAIT))
            wait *= 2
        raise AssertionError("at least one attempt is made")

    def _send(self, client: Any, path: str, body: Mapping[str, Any] | None) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and content of one answer, within the time and the size that an answer may take."""
        method, data = ("GET", None) if body is None else ("POST", json.dumps(body).encode())
        content = bytearray()
        deadline = time.monotonic() + self._timeout
        with client.stream(method, f"{self._root}/{path}", headers=_headers(), content=data) as response:
            for piece in response.iter_bytes():
                content += piece
                if len(content) > MAX_ANSWER:
                    what = f"the server's answer is longer than {MAX_ANSWER // 2**20} MiB"
                    raise RunError(
                        what, where=self._root, hint="Ask for fewer new tokens, or look at the server's log."
                    )
                if time.monotonic() > deadline:
                    raise self._http.ReadTimeout(f"the answer was not complete after {self._timeout:g} s")
            return response.status_code, response.headers, bytes(content)

    def _parse(self, content: bytes) -> Any:
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise self._not_understood(content.decode(errors="replace")) from error

    def _read_choice(self, answer: Any, chat: bool) -> tuple[str, tuple[int, ...], bool]:
        """Text of the first choice, no token ids, and whether it ended by itself."""
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"] if chat else choice["text"]
            return str(text or ""), (), choice["finish_reason"] != "length"
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise self._not_understood(answer) from error

    def _refused(self, status: int, content: bytes) -> RlmergeError:
        said = content[:2000].decode(errors="replace").strip() or "nothing"
        what, where = f"the server answers {status}: {said}", self._root
        if status in _TRANSIENT:
            return RunError(what, where=where, hint="Run the same command again once the server has recovered.")
        if status in (401, 403):
            return RequestError(what, where=where, hint=f"Set the environment variable {KEY_VARIABLE} to its key.")
        if status == 404:
            return RequestError(what, where=where, hint="The URL of most servers ends in /v1.")
        return RequestError(what, where=where, hint="Correct what the server complains about.")

    def _not_understood(self, answer: Any) -> RunError:
        hint = "It must speak the OpenAI API: /v1/models, /v1/completions, /v1/chat/completions."
        try:
            said = answer if isinstance(answer, str) else json.dumps(answer)
        except RecursionError:
            said = "JSON that is nested too deeply"
        return RunError(f"the server's answer is not understood: {said[:300]!r}", where=self._root, hint=hint)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _headers() -> dict[str, str]:
    """The headers of every request; RequestError when the key cannot be sent."""
    headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
    if key := os.environ.get(KEY_VARIABLE):
        if not (key.isascii() and key.isprintable()):
            raise RequestError("the server's key contains characters that cannot be sent", where=KEY_VARIABLE)
        headers["Authorization"] = f"Bearer {key}"
    return headers


def _retry_after(text: str | None) -> float | None:
    """Seconds the server asks to wait; None where it names none, a date, or what cannot be waited for."""
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
