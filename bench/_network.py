"""Two hosts on this machine: network namespaces with a slow line between them. Needs Linux, root, iproute2 and TUN.

The line is this program: it takes the packets of one host from a TUN device, lets them wait for their turn and the
delay, and gives them to the other host. So it needs no queueing discipline of the kernel (``netem`` is often missing);
TCP, with its windows and its slow start, is the kernel's own. What finds more than ``QUEUE`` seconds of packets before
it is dropped, as by any router.

    python bench/_network.py DELAY RATE      # prints "ready", then forwards until it is killed
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MTU = 9000
QUEUE = 0.25
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000


@dataclass(frozen=True)
class Host:
    """A namespace with one address; ``inside`` is the beginning of a command that runs there."""

    namespace: str
    address: str

    @property
    def inside(self) -> list[str]:
        return ["ip", "netns", "exec", self.namespace]


CLIENT = Host("rlmerge-client", "10.77.0.1")
SERVER = Host("rlmerge-server", "10.77.0.2")


@contextmanager
def two_hosts(delay: float, rate: float) -> Iterator[tuple[Host, Host]]:
    """Client and server, ``delay`` seconds apart in each direction, with ``rate`` bytes a second in each."""
    hosts = (CLIENT, SERVER)
    for host in hosts:
        subprocess.run(["ip", "netns", "add", host.namespace], check=True)
    words = [sys.executable, __file__, str(delay), str(rate)]
    line = subprocess.Popen(words, stdout=subprocess.PIPE)
    try:
        assert line.stdout is not None
        if line.stdout.readline() != b"ready\n":
            raise SystemExit("the line between the hosts did not come up")
        yield hosts
    finally:
        line.kill()
        line.wait()
        for host in hosts:
            subprocess.run(["ip", "netns", "delete", host.namespace], check=False)


def device(host: Host, peer: Host) -> int:
    """A TUN device in a namespace, up and routed; the descriptor of its packets."""
    name = host.namespace[:15].encode()
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH", name, _IFF_TUN | _IFF_NO_PI))
    shown = name.decode()
    subprocess.run(["ip", "link", "set", shown, "netns", host.namespace], check=True)
    for words in (
        ["ip", "addr", "add", host.address, "peer", peer.address, "dev", shown],
        ["ip", "link", "set", shown, "mtu", str(MTU), "up"],
        ["ip", "link", "set", "lo", "up"],
    ):
        subprocess.run([*host.inside, *words], check=True)
    return fd


class Direction:
    """Packets from one device to the other."""

    def __init__(self, source: int, target: int, delay: float, rate: float) -> None:
        self.source, self.target, self.delay, self.rate = source, target, delay, rate
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.some = threading.Semaphore(0)

    def receive(self) -> None:
        free = 0.0
        while True:
            packet = os.read(self.source, 65536)
            now = time.monotonic()
            if free - now > QUEUE:
                continue
            free = max(free, now) + len(packet) / self.rate
            self.waiting.append((free + self.delay, packet))
            self.some.release()

    def deliver(self) -> None:
        while True:
            self.some.acquire()
            due, packet = self.waiting.popleft()
            left = due - time.monotonic()
            if left > 0:
                time.sleep(left)
            os.write(self.target, packet)


def main() -> None:
    delay, rate = map(float, sys.argv[1:])
    client, server = device(CLIENT, SERVER), device(SERVER, CLIENT)
    threads = [
        threading.Thread(target=work)
        for direction in (Direction(client, server, delay, rate), Direction(server, client, delay, rate))
        for work in (direction.receive, direction.deliver)
    ]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
