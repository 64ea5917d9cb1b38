import json
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("httpx2")

from rlmerge.errors import RequestError, RunError
from rlmerge.evaluate.generate import Sample, Sampling, make_generator
from rlmerge.evaluate.generate import server as module
from rlmerge.evaluate.generate.server import KEY_VARIABLE, ServerGenerator

MODEL = Path("/models/merged")
SAMPLING = Sampling(max_new_tokens=4, temperature=0.5)


class Server:
    """A real HTTP server that lists ``models``, echoes prompts, and first of all gives the ``failures`` it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict | None, str | None]] = []
        self.failures: list[tuple[int, dict[str, str], str]] = []
        self.models = ["base", "merged"]
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.reply(None)

            def do_POST(self):
                self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def reply(self, body):
                with lock:
                    outer.seen.append((self.path, body, self.headers.get("Authorization")))
                    status, headers, text = (
                        outer.failures.pop(0) if outer.failures else (200, {}, outer.answer(self.path, body))
                    )
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(text.encode()))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, path, body):
        if path == "/v1/models":
            return json.dumps({"data": [{"id": name} for name in self.models]})
        if path == "/v1/chat/completions":
            said = body["messages"][0]["content"].upper()
            return json.dumps({"choices": [{"message": {"content": said}, "finish_reason": "stop"}]})
        return json.dumps({"choices": [{"text": body["prompt"] + "!", "finish_reason": "length"}]})

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    yield running
    running.close()


@pytest.fixture
def waits():
    return []


@pytest.fixture
def generator(server, waits):
    return ServerGenerator(server.url, sleep=waits.append)


def test_completions_keep_their_order_and_have_seeds_of_their_own(server):
    prompts = [f"prompt {number}" for number in range(20)]
    made = make_generator("server", server=server.url).generate(MODEL, prompts, replace(SAMPLING, samples=2))
    assert made == [[Sample(prompt, prompt + "!", (), False)] * 2 for prompt in prompts]
    bodies = [body for path, body, _ in server.seen if path == "/v1/completions"]
    assert len({body.pop("seed") for body in bodies}) == 40
    assert all(body.pop("prompt") in prompts for body in bodies)
    assert bodies == [{"model": "merged", "max_tokens": 4, "temperature": 0.5, "top_p": 1.0}] * 40


def test_chat_asks_as_the_user(server, generator):
    assert generator.generate(MODEL, ["hi"], replace(SAMPLING, chat=True)) == [[Sample("hi", "HI", (), True)]]
    assert server.seen[-1][1]["messages"] == [{"role": "user", "content": "hi"}]


def test_the_key_comes_from_the_environment(server, generator, monkeypatch):
    generator.generate(MODEL, ["a"], SAMPLING)
    assert {key for *_, key in server.seen} == {None}
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    generator.generate(MODEL, ["a"], SAMPLING)
    assert server.seen[-1][2] == "Bearer secret"


def test_a_model_is_found_by_its_path_or_its_name_and_never_replaced(server, generator, tmp_path):
    server.models = ["base", str(tmp_path)]
    generator.generate(tmp_path, ["a"], SAMPLING)
    assert server.seen[-1][1]["model"] == str(tmp_path)
    server.models = ["mergd"]
    with pytest.raises(RequestError, match=r"does not serve 'merged'(?s:.*)Did you mean 'mergd'\?"):
        generator.generate(MODEL, ["a"], SAMPLING)
    assert server.seen[-1][0] == "/v1/models"


def test_failures_that_pass_are_waited_for(server, generator, waits):
    server.failures = [(503, {}, "loading"), (429, {"Retry-After": "7"}, ""), (500, {"Retry-After": "Thu, 1 Jan"}, "")]
    assert generator.generate(MODEL, ["a"], SAMPLING)[0][0].text == "a!"
    assert waits == [1.0, 7.0, 4.0]


@pytest.mark.parametrize(
    ("asked", "waited"),
    [("nan", 1.0), ("-5", 1.0), ("inf", 1.0), ("1e309", 1.0), ("0", 1.0), ("86400", 60.0), ("2.5", 2.5), ("soon", 1.0)],
)
def test_a_wait_that_makes_no_sense_is_our_own(server, generator, waits, asked, waited):
    server.failures = [(429, {"Retry-After": asked}, "")]
    assert generator.generate(MODEL, ["a"], SAMPLING)[0][0].text == "a!"
    assert waits == [waited]


def test_failures_that_last_are_told_with_what_the_server_said(server, generator, waits):
    server.failures = [(503, {}, "still loading")] * 5
    with pytest.raises(RunError, match="answers 503: still loading"):
        generator.generate(MODEL, ["a"], SAMPLING)
    assert waits == [1.0, 2.0, 4.0, 8.0] and len(server.seen) == 5


@pytest.mark.parametrize(
    ("status", "hint"), [(401, KEY_VARIABLE), (404, "ends in /v1"), (400, "Correct what the server complains about")]
)
def test_requests_the_server_refuses_are_not_repeated(server, generator, status, hint):
    server.failures = [(status, {}, "no")]
    with pytest.raises(RequestError, match=f"answers {status}: no\n.*{hint}"):
        generator.generate(MODEL, ["a"], SAMPLING)
    assert len(server.seen) == 1


def test_a_redirect_never_carries_the_key_away(server, generator, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    server.failures = [(302, {"Location": server.url.replace("/v1", "/elsewhere")}, "")]
    with pytest.raises(RequestError, match="answers 302"):
        generator.generate(MODEL, ["a"], SAMPLING)
    assert len(server.seen) == 1


@pytest.mark.parametrize("text", ["<html>hello</html>", "[]", '{"data": [1]}', "[" * 100_000, '{"data": ' * 5_000])
def test_an_answer_in_another_language_is_shown(server, generator, text):
    server.failures = [(200, {}, text)]
    with pytest.raises(RunError, match="answer is not understood") as error:
        generator.generate(MODEL, ["a"], SAMPLING)
    assert text.strip("{}")[1:5] in str(error.value) and len(str(error.value)) < 600
    assert len(server.seen) == 1


def test_a_completion_of_another_shape_is_shown(server, generator, monkeypatch):
    for choice in ('{"choices": []}', '{"choices": [{"text": "a"}]}', '{"choices": [3]}', "3"):
        server.failures = [(200, {}, server.answer("/v1/models", None)), (200, {}, choice)]
        with pytest.raises(RunError, match="answer is not understood"):
            generator.generate(MODEL, ["a"], SAMPLING)


class Endless(Server):
    """Answers with a body that never ends: as fast as it is read, or a byte now and then."""

    def __init__(self, pause):
        super().__init__()
        handler = self.http.RequestHandlerClass

        def reply(handler, body):
            handler.send_response(200)
            handler.end_headers()
            try:
                while True:
                    handler.wfile.write(b" " * (1 if pause else 65536))
                    time.sleep(pause)
            except OSError:
                pass

        handler.reply = reply


def test_an_answer_without_an_end_is_given_up(monkeypatch):
    monkeypatch.setattr(module, "MAX_ANSWER", 2**20)
    server = Endless(0.0)
    with pytest.raises(RunError, match="the server's answer is longer than 1 MiB"):
        ServerGenerator(server.url, attempts=1).generate(MODEL, ["a"], SAMPLING)
    server.close()


def test_an_answer_that_drips_is_given_up():
    server = Endless(0.02)
    with pytest.raises(RunError, match=r"does not answer: the answer was not complete after 0.5 s"):
        ServerGenerator(server.url, attempts=1, timeout=0.5).generate(MODEL, ["a"], SAMPLING)
    server.close()


@pytest.mark.parametrize("key", ["ключ", "a\nX-Other: b"])
def test_a_key_that_is_none_is_refused_and_not_shown(server, generator, monkeypatch, key):
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(RequestError, match="characters that cannot be sent") as error:
        generator.generate(MODEL, ["a"], SAMPLING)
    assert key not in str(error.value) and server.seen == []


def test_without_its_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(RequestError, match=r"pip install 'rlmerge\[server\]'"):
        ServerGenerator("http://localhost/v1")


def test_a_server_that_is_down_is_named(waits):
    gone = Server()
    gone.close()
    with pytest.raises(RunError, match=r"does not answer: .*refused") as error:
        ServerGenerator(gone.url, sleep=waits.append).generate(MODEL, ["a"], SAMPLING)
    assert error.value.where == gone.url and len(waits) == 4


def test_a_server_that_goes_down_in_between_ends_the_run(server, waits):
    generator = ServerGenerator(server.url, attempts=1, sleep=waits.append)
    server.failures = [(200, {}, server.answer("/v1/models", None)), (502, {}, "gateway")]
    with pytest.raises(RunError, match="answers 502: gateway"):
        generator.generate(MODEL, ["a", "b", "c"], SAMPLING)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000", "cannot be the URL"),
        ("ftp://host", "cannot be the URL"),
        ("http://host:port/v1", "cannot be the URL"),
        ("http://[/v1", "cannot be the URL"),
        ("http://me:pw@host/v1", "holds a password"),
    ],
)
def test_urls_that_cannot_be_used(url, message):
    with pytest.raises(RequestError, match=message) as error:
        ServerGenerator(url)
    assert "me:pw" not in str(error.value)
