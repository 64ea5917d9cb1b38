import io
import threading

import pytest

from rlmerge.cli.progress import Bars, Lines, show_progress
from rlmerge.progress import Quiet


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_line_every_ten_seconds_with_rate_and_time_left():
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    lines.start("merge", 1_000_000_000)
    for second in range(1, 26):
        clock.now = 100.0 + second
        lines.advance(10_000_000)
    lines.done()
    lines.start("seal", 0)
    assert stream.getvalue().splitlines() == [
        "merge: 1 GB",
        "merge: 100 MB of 1 GB, 10 MB/s, 1:30 left",
        "merge: 200 MB of 1 GB, 10 MB/s, 1:20 left",
        "merge: done in 25.0 s",
        "seal",
    ]


def test_other_things_than_bytes_are_counted_by_name():
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    lines.start("train", 1_200, "experts")
    clock.now += 20
    lines.advance(300)
    assert stream.getvalue().splitlines() == ["train: 1,200 experts", "train: 300 of 1,200 experts, 1:00 left"]


def test_a_closed_stream_never_stops_a_run():
    stream = io.StringIO()
    lines = Lines(stream)
    stream.close()
    lines.start("merge", 10)
    lines.message("still here")
    lines.done()


def test_threads_count_every_byte():
    clock = Clock()
    stream = io.StringIO()
    lines = Lines(stream, clock)
    lines.start("scan", 80_000)
    threads = [threading.Thread(target=lambda: [lines.advance(1) for _ in range(9_999)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clock.now += 10
    lines.advance(8)
    assert stream.getvalue().splitlines()[-1] == "scan: 80 kB of 80 kB, 8 kB/s"


def test_bars_show_one_phase_at_a_time_and_print_messages_as_they_are():
    from rich.console import Console
    from rich.progress import Progress

    stream = io.StringIO()
    rich = Progress(console=Console(file=stream, width=80))
    bars = Bars(rich)
    bars.advance(3)
    bars.start("scan", 10)
    bars.start("merge", 10)
    bars.advance(4)
    assert [(task.description, task.completed) for task in rich.tasks] == [("merge", 4)]
    bars.done()
    assert rich.tasks == []
    bars.message("[bold]warning[/bold]")
    assert stream.getvalue() == "[bold]warning[/bold]\n"


def test_the_kind_follows_the_stream(monkeypatch):
    with show_progress(quiet=True) as progress:
        assert isinstance(progress, Quiet)
    with show_progress(quiet=False) as progress:
        assert isinstance(progress, Lines)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with show_progress(quiet=False) as progress:
        assert isinstance(progress, Bars)


@pytest.mark.parametrize("call", [("start", "scan", 1), ("advance", 1), ("done",), ("message", "x")])
def test_silent_is_silent(capfd, call):
    name, *arguments = call
    getattr(Quiet(), name)(*arguments)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("text", ["\x1b]0;x\x07", "a\nerror: fake"])
def test_messages_steer_no_terminal_and_fake_no_line(text):
    from rich.console import Console
    from rich.progress import Progress

    plain, bars = io.StringIO(), io.StringIO()
    Lines(plain).message(text)
    Bars(Progress(console=Console(file=bars, width=80))).message(text)
    for shown in (plain.getvalue(), bars.getvalue()):
        assert "\x1b" not in shown and "\nerror" not in shown


def test_bars_on_a_terminal_that_has_gone_away(monkeypatch):
    class Gone(io.StringIO):
        def write(self, _):
            raise OSError(5, "Input/output error")

        def isatty(self):
            return True

    monkeypatch.setattr("sys.stderr", Gone())
    with show_progress(quiet=False) as progress:
        assert isinstance(progress, Bars)
        progress.start("merge", 10)
        progress.advance(4)
        progress.message("x")
        progress.done()
