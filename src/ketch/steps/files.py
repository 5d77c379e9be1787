"""Files in a folder of their own: a build context, a plain project, the files of a plan.

{path: bytes} --*write*--> folder, in which all of them appear when they are whole
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ketch.errors import InputError


def require_empty(folder: Path) -> None:
    """Refuse a folder in which something is.

    Raises:
        InputError: something is there.
    """
    try:
        taken = folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir())))
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}", hint="Choose another folder.") from None
    if taken:
        raise InputError(f"{folder} holds something else", hint="Choose a folder that is empty or not there.")


def write(files: Mapping[str, bytes], folder: Path, *, when: int | None = None) -> None:
    """Write files to a folder that is empty or not there yet; with `when`, all have that one time.

    Raises:
        InputError: something is there, or it cannot be written.
    """
    require_empty(folder)
    part = folder / ".part"
    try:
        for name, data in files.items():
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o644)
        for path in sorted(part.rglob("*"), reverse=True) if when is not None else ():
            os.utime(path, (when or 0, when or 0))
        for path in sorted(part.iterdir()):
            path.rename(folder / path.name)
        part.rmdir()
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise InputError(f"{folder} cannot be written: {error.strerror}", hint="Choose another folder.") from None
