"""Ask at a constant rate: python -m benchmarks.pace PORT PATH BODIES RATE SECONDS CONNECTIONS [KEY].

A request that waits, since all connections are in use, counts from when it should have been sent: a server that stalls
does not make the load wait for it and so look fast. The loop never sleeps: timers are too coarse for 20,000 a second.
"""

import gc
import select
import socket
import statistics
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httptools
import msgspec

from benchmarks.figures import Steady

GRACE: Final = 5.0  # seconds that the last answers may take


class Connection:
    """One connection, with at most one request on its way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.parser = httptools.HttpResponseParser(self)
        self.due = 0.0
        self.complete = False

    def send(self, question: bytes, due: float) -> None:
        """Ask."""
        self.due, self.complete = due, False
        self.socket.sendall(question)

    def read(self) -> None:
        """Read what has come.

        Raises:
            ConnectionError: the server has closed the connection.
        """
        if not (data := self.socket.recv(65536)):
            raise ConnectionError("the server closed a connection")
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Note that the answer is whole."""
        self.complete = True


def pace(port: int, questions: Sequence[bytes], rate: float, seconds: float, connections: int) -> Steady:
    """Send `rate` questions a second, evenly, for so many seconds; latencies are in milliseconds."""
    idle = deque(Connection(port) for _ in range(connections))
    poll = select.epoll()
    by_number = {each.socket.fileno(): each for each in idle}
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    total, gap, sent, faults = max(1, round(rate * seconds)), 1.0 / rate, 0, 0
    waited: list[float] = []
    now = time.perf_counter
    began = last = now() + 0.01
    until = began + seconds + GRACE
    while len(waited) + faults < total and now() < until:
        while idle and sent < total and began + sent * gap <= now():
            idle.popleft().send(questions[sent % len(questions)], began + sent * gap)
            sent += 1
        for number, _ in poll.poll(0):
            asked = by_number[number]
            asked.read()
            if asked.complete:
                last = now()
                if asked.parser.get_status_code() == 200:
                    waited.append(last - asked.due)
                else:
                    faults += 1
                idle.append(asked)
    for each in by_number.values():
        each.socket.close()
    poll.close()
    return summary(waited, rate, last - began, total - len(waited))


def summary(waited: Sequence[float], asked: float, lasted: float, faults: int) -> Steady:
    """Give rate and percentiles."""
    if not waited:
        return Steady(asked, 0.0, float("inf"), float("inf"), faults)
    cuts = statistics.quantiles(waited, n=100, method="inclusive") if len(waited) > 1 else [waited[0]] * 99
    return Steady(asked, len(waited) / lasted if lasted > 0 else 0.0, cuts[49] * 1e3, cuts[98] * 1e3, faults)


def main() -> None:
    """Do what the command line says and print the figures."""
    port, path, bodies, rate, seconds, connections, *key = sys.argv[1:]
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    if any(key):
        head += f"Authorization: Bearer {key[0]}\r\n"
    lines = Path(bodies).read_bytes().splitlines()
    questions = [head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(each), each) for each in lines]
    gc.disable()  # a pause of the collector here would look like one of the server
    found = pace(int(port), questions, float(rate), float(seconds), int(connections))
    print(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()
