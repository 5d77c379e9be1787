"""Which models a server opens, under which names and in which roles, and how they are opened."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ketch import trust
from ketch.bundle import SUFFIX
from ketch.errors import InputError, KetchError, SettingError
from ketch.predict import Limits, Predictor, load
from ketch.serve.lineup import Line, Lineup
from ketch.settings import Settings
from ketch.store import Store

ROLES: Final = {"split": "rival", "shadow": "shadow"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One MODEL that is served: what was given, in which role, with which share of the questions."""

    model: str
    role: str = "champion"
    share: float = 0.0

    @property
    def path(self) -> Path | None:
        """Give the file, where it is one."""
        path = Path(self.model)
        return path if path.exists() else None

    def seen(self, settings: Settings) -> object:
        """Give what changes when something else stands behind this name, None while it cannot be told."""
        try:
            if self.path is None:
                return Store(settings.home / "store").resolve(self.model).sha256
            told = self.path.stat()
            signature = self.path.with_name(self.path.name + trust.SIGNATURE)
            signed = signature.stat().st_mtime_ns if signature.exists() else 0
            return told.st_mtime_ns, told.st_size, told.st_ino, signed
        except (OSError, KetchError):
            return None

    def open(self, settings: Settings, *, replay: bool = True, sha256: str = "") -> Predictor:
        """Open it; where it is known what it must be, nothing else is opened.

        Raises:
            KetchError: it cannot be opened here, or is not what it must be.
        """
        limits = Limits(settings.max_rows, settings.strict, settings.lenient)
        return load(
            self.model,
            home=settings.home,
            limits=limits,
            require_signature=settings.require_signature,
            replay=replay,
            sha256=sha256,
        )


def entries_of(models: Sequence[str], settings: Settings) -> list[Entry]:
    """Make the entries of the MODELs given, each a file, a store reference, a folder of bundles, or the store itself.

    Raises:
        InputError: a folder holds no model.
        SettingError: a split cannot be read.
    """
    found = [Entry(each) for model in models for each in _expanded(model, settings)]
    for name, role in ROLES.items():
        for text in getattr(settings, name):
            model, _, share = text.partition("=")
            found.append(Entry(model, role, _share(text, share) if role == "rival" else 0.0))
    return found


def _expanded(model: str, settings: Settings) -> Iterator[str]:
    folder, own = Path(model), settings.home / "store"
    if not folder.is_dir() or (folder / "MLmodel").is_file():
        yield model
        return
    if folder.resolve() == own.resolve():
        yield from dict.fromkeys(version.name for version in Store(own).list())
        return
    files = sorted(folder.glob(f"*{SUFFIX}"))
    if not files:
        raise InputError(f"The folder {model} holds no bundle", hint=f"Put *{SUFFIX} files into it, or name them.")
    yield from map(str, files)


def _share(text: str, share: str) -> float:
    try:
        found = float(share.removesuffix("%")) / 100
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise SettingError(f"The split {text!r} names no share", hint="Write one in percent: churn@challenger=10.")
    return found


def lineup_of(opened: Mapping[Entry, Predictor], default: str) -> Lineup:
    """Put opened models in line by their names.

    Raises:
        SettingError: two go by one name, or a second version has no first.
    """
    lines: dict[str, Line] = {}
    for entry, predictor in opened.items():
        name = predictor.name
        if entry.role == "champion":
            if name in lines:
                raise SettingError(f"Two models go by the name {name}", hint="Pack one of them with another --name.")
            lines[name] = Line(name, {"champion": predictor})
        elif name not in lines:
            raise SettingError(f"{entry.model} is of {name}, which is not served", hint=f"Serve {name} too.")
        else:
            line = lines[name]
            lines[name] = Line(name, {**line.versions, entry.role: predictor}, entry.share or line.share)
    if default and default not in lines:
        raise SettingError(f"No model {default!r} is served", hint=f"There are: {', '.join(lines)}")
    return Lineup(lines, default)
