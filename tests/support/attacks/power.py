"""Power cuts: what may be on disk after one, worked out from the calls that a run made.

A call that changes a file or a directory is on disk for certain once an fsync of that file or directory followed it. Of
the others any may be there or not: this is what POSIX allows, and more than most file systems do. ``Recorder`` writes
down the calls of a run; ``Recording.state`` builds the tree that a cut after a number of them leaves.
"""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from rlmerge.checkpoint import syscalls


@dataclass(frozen=True)
class Call:
    """One call: its kind, the objects (files and directories, by number) that an fsync must follow, and the details."""

    kind: str
    objects: tuple[int, ...]
    details: tuple[Any, ...] = ()


@dataclass
class Recording:
    """The tree as it was, by object number (bytes of a file, entries of a directory), and the calls that followed."""

    root: int
    before: dict[int, bytes | dict[str, int]]
    calls: list[Call] = field(default_factory=list)

    def certain(self, count: int) -> set[int]:
        """The calls among the first ``count`` that are on disk whatever happens."""
        found: set[int] = set()
        for number, call in enumerate(self.calls[:count]):
            if call.kind == "sync":
                found.update(n for n in range(number) if call.objects[0] in self.calls[n].objects)
        return found

    def state(self, count: int, chance: float, rng: random.Random) -> dict[int, bytearray | dict[str, int]]:
        """Objects after a cut behind the first ``count`` calls; each uncertain one got to the disk with ``chance``."""
        certain = self.certain(count)
        objects: dict[int, Any] = {
            number: bytearray(value) if isinstance(value, bytes) else dict(value)
            for number, value in self.before.items()
        }
        for number, call in enumerate(self.calls[:count]):
            if call.kind == "create":
                # The object may get a name, or data, without the call that made it in this place.
                objects.setdefault(call.details[1], dict[str, int]() if call.details[2] == "directory" else bytearray())
            if number in certain or rng.random() < chance:
                _apply(call, objects)
        return objects

    def write(self, objects: dict[int, Any], folder: Path) -> None:
        """Make ``folder`` from the objects of a state."""
        _write(objects, self.root, folder)


def _apply(call: Call, objects: dict[int, Any]) -> None:
    """Do what a call did, if what it was done to is there."""
    if call.kind == "create":
        objects[call.objects[0]][call.details[0]] = call.details[1]
    elif call.kind == "data" and call.objects[0] in objects:
        offset, data = call.details
        held: bytearray = objects[call.objects[0]]
        held.extend(bytes(max(0, offset + len(data) - len(held))))
        held[offset : offset + len(data)] = data
    elif call.kind == "size" and call.objects[0] in objects:
        held = objects[call.objects[0]]
        held.extend(bytes(max(0, call.details[0] - len(held))))
    elif call.kind == "remove":
        objects.get(call.objects[0], {}).pop(call.details[0], None)
    elif call.kind in ("rename", "exchange"):
        first, second = (objects.get(folder) for folder in call.objects[:2])
        source, target = call.details
        if first is not None and second is not None and source in first:
            moved, other = first.pop(source), second.get(target)
            second[target] = moved
            if call.kind == "exchange" and other is not None:
                first[source] = other


def _write(objects: dict[int, Any], number: int, path: Path) -> None:
    held = objects.get(number, b"")
    if isinstance(held, dict):
        path.mkdir()
        for name, entry in held.items():
            _write(objects, entry, path / name)
    else:
        path.write_bytes(held)


class Recorder:
    """Writes down the calls that change what is below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.realpath(root))
        self._numbers: dict[int, int] = {}
        self._lock = Lock()
        self._next = 0
        before: dict[int, Any] = {}
        self.recording = Recording(self._take(self.root, before), before)

    def _take(self, path: Path, before: dict[int, Any]) -> int:
        number = self._number(path.lstat().st_ino, new=True)
        if path.is_dir():
            before[number] = {entry.name: self._take(entry, before) for entry in path.iterdir()}
        else:
            before[number] = path.read_bytes()
        return number

    def _number(self, inode: int, new: bool = False) -> int:
        """The number of an object; inodes are used again once a file is gone, numbers are not."""
        if new:
            self._numbers[inode] = self._next
            self._next += 1
        return self._numbers[inode]

    def place(self, path: Any, dir_fd: int | None = None) -> tuple[int, str] | None:
        """(number of the directory, name) of a path below the root, None of others."""
        base = Path.cwd() if dir_fd is None else Path(f"/proc/self/fd/{dir_fd}").readlink()
        whole = base / os.fsdecode(path)
        parent = Path(os.path.realpath(whole.parent))
        if parent != self.root and self.root not in parent.parents:
            return None
        return self._number(parent.stat().st_ino), whole.name

    def subject(self, fd: int) -> int | None:
        """The number of an open file below the root."""
        path = Path(f"/proc/self/fd/{fd}").readlink()
        inside = path == self.root or self.root in path.parents
        return self._numbers.get(os.fstat(fd).st_ino) if inside else None

    def add(self, kind: str, objects: tuple[int, ...], *details: Any) -> None:
        """Write a call down."""
        self.recording.calls.append(Call(kind, objects, details))

    def hooks(self) -> dict[str, Callable[..., Any]]:
        """For each function of ``os`` one that does and writes down."""
        real = {name: getattr(os, name) for name in _HOOKED}

        def open_(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            place = self.place(path, dir_fd) if flags & os.O_CREAT else None
            fd = real["open"](path, flags, mode, dir_fd=dir_fd)
            if place:
                assert flags & os.O_EXCL, "a file of a merge is created, never written over"
                made = self._number(os.fstat(fd).st_ino, new=True)
                self.add("create", (place[0],), place[1], made, "file")
            return fd

        def mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
            place = self.place(path, dir_fd)
            real["mkdir"](path, mode, dir_fd=dir_fd)
            if place:
                made = self._number(Path(path).stat().st_ino, new=True)
                self.add("create", (place[0],), place[1], made, "directory")

        def write(fd: int, data: Any) -> int:
            subject = self.subject(fd)
            appends = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND if subject is not None else 0
            offset = 0 if subject is None else os.fstat(fd).st_size if appends else os.lseek(fd, 0, os.SEEK_CUR)
            count = real["write"](fd, data)
            if subject is not None:
                self.add("data", (subject,), offset, bytes(memoryview(data)[:count]))
            return count

        def pwrite(fd: int, data: Any, offset: int) -> int:
            count = real["pwrite"](fd, data, offset)
            if (subject := self.subject(fd)) is not None:
                self.add("data", (subject,), offset, bytes(memoryview(data)[:count]))
            return count

        def posix_fallocate(fd: int, offset: int, length: int) -> None:
            real["posix_fallocate"](fd, offset, length)
            if (subject := self.subject(fd)) is not None:
                self.add("size", (subject,), offset + length)

        def fsync(fd: int) -> None:
            subject = self.subject(fd)
            real["fsync"](fd)
            if subject is not None:
                self.add("sync", (subject,))

        def remove(name: str) -> Callable[..., None]:
            def call(path: Any, *, dir_fd: int | None = None) -> None:
                place = self.place(path, dir_fd)
                real[name](path, dir_fd=dir_fd)
                if place:
                    self.add("remove", (place[0],), place[1])

            return call

        def rename(name: str) -> Callable[..., None]:
            def call(source: Any, target: Any) -> None:
                places = self.place(source), self.place(target)
                real[name](source, target)
                if places[0] and places[1]:
                    self.add("rename", (places[0][0], places[1][0]), places[0][1], places[1][1])

            return call

        return {"open": open_, "mkdir": mkdir, "write": write, "pwrite": pwrite, "posix_fallocate": posix_fallocate,
                "fsync": fsync, "unlink": remove("unlink"), "rmdir": remove("rmdir"), "rename": rename("rename"),
                "replace": rename("replace")}  # fmt: skip

    def exchange(self, real: Callable[[Path, Path], bool]) -> Callable[[Path, Path], bool]:
        """The swap of two paths, written down."""

        def call(first: Path, second: Path) -> bool:
            places = self.place(first), self.place(second)
            done = real(first, second)
            if done and places[0] and places[1]:
                self.add("exchange", (places[0][0], places[1][0]), places[0][1], places[1][1])
            return done

        return call


_HOOKED = ("open", "mkdir", "write", "pwrite", "posix_fallocate", "fsync", "unlink", "rmdir", "rename", "replace")


@contextmanager
def recorded(root: Path) -> Generator[Recording]:
    """Write down what the block does below ``root``."""
    recorder = Recorder(root)
    kept = {name: getattr(os, name) for name in _HOOKED}
    exchange = syscalls.exchange
    for name, call in recorder.hooks().items():
        setattr(os, name, call)
    syscalls.exchange = recorder.exchange(exchange)
    try:
        yield recorder.recording
    finally:
        for name, call in kept.items():
            setattr(os, name, call)
        syscalls.exchange = exchange
