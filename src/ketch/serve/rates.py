"""Rates: how often each caller may ask, counted once for all workers of a server.

The rule is the generic cell rate algorithm (ITU-T I.371, annex A, in its form of virtual scheduling): of each caller
one number is kept for each limit, the time at which all that was asked would have arrived at an even pace. `100/s`
is a bucket of 100 that fills evenly: within any time t no more than 100 + 100 t are let in.

The numbers stand in a file that every worker maps into memory. Its clock is the monotonic one, which is the same in
every process of a machine and is not set back: a limit must not end, or last for a year, because the time of day was
set. What stands in the file from before the machine was started last is recognised, since it lies too far ahead.
"""

import hashlib
import math
import mmap
import os
import re
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from ketch.errors import SettingError, TooManyRequests
from ketch.trust.alone import free, hold

LIMIT: Final = re.compile(r"([1-9]\d{0,6})\s*/\s*(s|min|h|day)", re.ASCII)
PERIODS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "day": 86400.0}
MAGIC: Final = b"ketch rates 1\0\0\0"
HEAD: Final = 64  # bytes before the first bucket: magic, salt, digest of the limits
SALT: Final = slice(16, 32)
WAYS: Final = 16  # callers in one bucket; each bucket is locked, and searched, as a whole
BUCKETS: Final = 4096
TAG: Final = 8  # bytes that stand for a caller's name
SLACK: Final = 1e-3  # of one request and of a second, for what is lost when times are added up
MOST_REMEMBERED: Final = 4096  # names whose place is known without hashing
NOBODY: Final = bytes(TAG)


class Limit(NamedTuple):
    """So many in a period of so many seconds."""

    most: int
    period: float


def limits_of(text: str) -> tuple[Limit, ...]:
    """Read limits such as `100/s, 100000/day`; none at all is no limit.

    Raises:
        SettingError: they are written otherwise.
    """
    found = []
    for word in filter(None, (each.strip() for each in text.split(","))):
        match = LIMIT.fullmatch(word)
        if match is None:
            raise SettingError(
                f"{word[:40]!r} is no rate", hint="Write 100/s, 1000/min, 10000/h or 100000/day; several with commas."
            )
        found.append(Limit(int(match[1]), PERIODS[match[2]]))
    return tuple(found)


class Rates:
    """Count what callers ask, and say when it is too much.

    `table` is the file that all workers share, made when it is not there; without one, or on Windows, this process
    counts alone. Whoever has asked nothing for a while gives its place up; should so many ask at once that none is
    left, newcomers share the place of somebody else: never is more let in than the limit says.
    """

    def __init__(
        self,
        limits: str,
        table: Path | None = None,
        *,
        buckets: int = BUCKETS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the table.

        Raises:
            SettingError: the limits cannot be read, or the table was made for others.
        """
        self.limits = limits_of(limits)
        self._clock = clock
        paces = (limit.period / limit.most for limit in self.limits)  # seconds from one request to the next
        self._paces = [
            (pace, limit.period + min(pace, 1.0) * SLACK) for pace, limit in zip(paces, self.limits, strict=True)
        ]
        self._times = struct.Struct(f"={len(self.limits)}d")
        self._tags = WAYS * TAG
        self._bucket = self._tags + WAYS * self._times.size
        self._buckets = buckets
        self._mutex = threading.Lock()  # a process does not shut its own threads out of a file
        self._places: dict[str, tuple[bytes, int]] = {}
        self._handle = -1
        if table is None or sys.platform == "win32":
            self._map = mmap.mmap(-1, self._size)
            self._map[:HEAD] = self._head()
        else:
            self._map = self._open(table)
        self._salt = self._map[SALT]

    @property
    def _size(self) -> int:
        return HEAD + self._buckets * self._bucket

    def _head(self) -> bytes:
        shape = f"{self.limits} {self._buckets} {WAYS} {sys.byteorder}".encode()
        return MAGIC + os.urandom(16) + hashlib.sha256(shape).digest()

    def _open(self, table: Path) -> mmap.mmap:
        self._handle = os.open(table, os.O_RDWR | os.O_CREAT, 0o600)
        head, found = self._head(), None
        hold(self._handle, HEAD, 0)
        try:
            if os.fstat(self._handle).st_size == 0:
                os.truncate(table, self._size)
            if os.fstat(self._handle).st_size == self._size:
                found = mmap.mmap(self._handle, self._size)
                if found[:HEAD] == bytes(HEAD):  # last, so that whoever is killed before leaves no half of a table
                    found[:HEAD] = head
        finally:
            free(self._handle, HEAD, 0)
        if found is None or found[: SALT.start] != MAGIC or found[SALT.stop : HEAD] != head[SALT.stop :]:
            self.close()
            raise SettingError(f"{table} was made for other rates", hint="Delete it while no server runs.")
        return found

    def close(self) -> None:
        """Let go of the table."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def take(self, name: str) -> None:
        """Count one request of a caller.

        Raises:
            TooManyRequests: it is one too many, and was not counted; `retry_after` says in how many seconds it is not.
        """
        if not self.limits:
            return
        tag, start = self._places.get(name) or self._place(name)
        handle = self._handle
        with self._mutex:
            if handle < 0:
                wait = self._count(tag, start)
            else:
                hold(handle, self._bucket, start)
                try:
                    wait = self._count(tag, start)
                finally:
                    free(handle, self._bucket, start)
        if wait:
            raise TooManyRequests(
                "You have asked more often than this service allows",
                hint=f"Ask again in {math.ceil(wait)} s.",
                retry_after=wait,
            )

    def _place(self, name: str) -> tuple[bytes, int]:
        """Say by which tag a caller is known, and where its bucket begins: the salt keeps others from choosing it."""
        mark = hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=2 * TAG, key=self._salt).digest()
        tag = mark[:TAG] if mark[:TAG] != NOBODY else mark[TAG:]
        place = tag, HEAD + int.from_bytes(mark[TAG:], "big") % self._buckets * self._bucket
        if len(self._places) >= MOST_REMEMBERED:
            self._places.clear()
        self._places[name] = place
        return place

    def _count(self, tag: bytes, start: int) -> float:
        """Move a caller's times on, unless one of them goes too far; then say how long that lasts."""
        now, table, times = self._clock(), self._map, self._times
        at = table.find(tag, start, start + self._tags)
        slot = (at - start) // TAG if at >= 0 and not (at - start) % TAG else self._settle(tag, start, now)
        at = start + self._tags + slot * times.size
        wait, after = 0.0, list(times.unpack_from(table, at))
        for each, (pace, full) in enumerate(self._paces):
            # what lies further ahead than a full bucket was written before the machine was started last
            ahead = after[each] - now
            ahead = ahead + pace if 0.0 < ahead <= full else pace
            if ahead > full:
                wait = max(wait, ahead - full)
            after[each] = now + ahead
        if not wait:
            times.pack_into(table, at, *after)
        return wait

    def _settle(self, tag: bytes, start: int, now: float) -> int:
        """Find a place in a bucket for a newcomer: a free one, one that nobody uses now, or a shared one."""
        busy = []
        for slot in range(WAYS):
            at = start + self._tags + slot * self._times.size
            aheads = (each - now for each in self._times.unpack_from(self._map, at))
            left = max(ahead if ahead <= full else 0.0 for ahead, (_, full) in zip(aheads, self._paces, strict=True))
            if left <= 0:
                self._map[start + slot * TAG : start + (slot + 1) * TAG] = tag
                return slot
            busy.append((left, slot))
        return min(busy)[1]
