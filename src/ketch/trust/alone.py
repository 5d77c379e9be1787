"""One at a time: what several processes read, change and write again must not be changed by two of them at once."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

LOCK: Final = ".ketch.lock"
PATIENCE: Final = 0.02  # seconds between two tries where waiting itself would give up
_threads: Final = threading.Lock()

# Every lock here dies with the process that holds it; nothing has to be cleaned up after one that was killed.
if sys.platform == "win32":
    import msvcrt

    def hold(handle: int, length: int, start: int) -> None:
        """Keep other processes out of a range of an open file, waiting until they are gone."""
        while True:
            os.lseek(handle, start, os.SEEK_SET)
            try:
                return msvcrt.locking(handle, msvcrt.LK_NBLCK, length)
            except PermissionError:
                time.sleep(PATIENCE)

    def free(handle: int, length: int, start: int) -> None:
        """Let others into the range again."""
        os.lseek(handle, start, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, length)

else:
    from fcntl import LOCK_EX, LOCK_UN, lockf

    def hold(handle: int, length: int, start: int) -> None:
        """Keep other processes out of a range of an open file, waiting until they are gone."""
        lockf(handle, LOCK_EX, length, start)

    def free(handle: int, length: int, start: int) -> None:
        """Let others into the range again."""
        lockf(handle, LOCK_UN, length, start)


@contextlib.contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Keep every other process and thread from changing the records in a folder; not to be entered twice.

    The lock is a file of its own, because the records are replaced, and whoever waited for the old one would hold
    a lock that nobody else sees.
    """
    with _threads:  # a process does not shut its own threads out of a file
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            hold(handle, 1, 0)
            yield
        finally:
            os.close(handle)  # which frees it
