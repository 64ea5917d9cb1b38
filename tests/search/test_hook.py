"""Hooks: commands and URLs that are told of a candidate."""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from rlmerge.errors import RequestError, RunError
from rlmerge.search.hook import Hook


def test_a_command_gets_the_directory_as_one_word(tmp_path):
    model = tmp_path / "a b; touch bad"
    model.mkdir()
    Hook("touch {model}/loaded").call(model)
    assert (model / "loaded").exists() and not (tmp_path / "bad").exists()


def test_a_command_that_fails_says_what_it_said(tmp_path):
    with pytest.raises(RunError, match="ended with exit code 2"):
        Hook("ls {model}/none").call(tmp_path)
    with pytest.raises(RunError, match="the hook failed"):
        Hook("no-such-program {model}").call(tmp_path)


def test_hooks_that_make_no_sense():
    with pytest.raises(RequestError, match="does not name the model"):
        Hook("reload.sh")
    with pytest.raises(RequestError, match="cannot be read as a command line"):
        Hook("reload.sh '{model}")


def test_a_url_gets_a_post(tmp_path):
    got = []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200 if self.path == "/load" else 500)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Server)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        Hook(f"{url}/load").call(tmp_path)
        with pytest.raises(RunError, match="500"):
            Hook(f"{url}/other").call(tmp_path)
    finally:
        server.shutdown()
        server.server_close()
    assert got == [{"model": str(tmp_path)}] * 2
