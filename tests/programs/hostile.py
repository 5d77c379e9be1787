"""Open hostile files one after the other, under an audit hook, and tell what became of each.

usage: hostile.py FOLDER HOME: FOLDER/good/* is opened first, so that everything is imported; then FOLDER/bad/*.
Writes FOLDER/told.json: for each file the refusal, or why it is none, and what was done while it was open.
"""

import json
import os
import sys
import traceback
from pathlib import Path

NEVER = (
    *("os.", "subprocess.", "socket.", "pty.", "signal.", "shutil.", "tempfile.", "urllib.", "ftplib.", "smtplib."),
    *("poplib.", "imaplib.", "telnetlib.", "http.", "webbrowser.", "sqlite3.", "ctypes.", "cpython.", "msvcrt."),
    *("winreg.", "builtins.input", "builtins.breakpoint", "code.", "function.", "marshal.", "pickle.find_class"),
    *("import", "exec", "compile", "open", "glob.", "mmap.", "setopencodehook", "sys.set", "gc.", "syslog.", "fcntl."),
    "resource.",
)


INSTALLED = (sys.prefix, sys.base_prefix)  # whose lists of plug-ins may be read


class Watch:
    """Note what Python does that no refusal needs."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.reads, self.home = str(folder / "bad"), str(home)
        self.seen: list[str] = []
        self.on = False
        sys.addaudithook(self.hook)

    def hook(self, event: str, given: tuple) -> None:
        if self.on and event.startswith(NEVER) and not self.may(event, given):
            self.on = False  # what describes an event makes others
            self.seen.append(f"{event} {given!r:.200}")
            self.on = True

    def may(self, event: str, given: tuple) -> bool:
        if event == "open":
            path, _, flags = given
            if isinstance(path, int):  # a pipe to the gate's child
                return True
            path = os.fsdecode(path)
            own = path.startswith(self.home)
            reads = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) == 0
            return own or (reads and path.startswith((self.reads, *INSTALLED)))
        if event in (
            "os.rename",
            "os.mkdir",
            "tempfile.mkstemp",
            "os.remove",
        ):  # the gate's own record, aside and in place
            return os.fsdecode(given[0]).startswith(self.home)
        if event == "subprocess.Popen":  # the gate's own child
            return list(given[1][1:3]) == ["-I", "-B"] and "ketch.trust" in given[1][-1]
        return event in {"os.listdir", "os.scandir"} and os.fsdecode(given[0]).startswith(
            (self.home, self.reads, *INSTALLED)
        )


def opened(path: Path, home: Path) -> dict:
    from ketch.errors import KetchError
    from ketch.predict import load

    try:
        load(path, home=home)
    except KetchError as error:
        return {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    except BaseException:
        return {"error": "", "message": traceback.format_exc(), "hint": ""}
    return {"error": "", "message": "it was opened", "hint": ""}


def main() -> None:
    folder, home = Path(sys.argv[1]), Path(sys.argv[2])
    for path in sorted(each for each in (folder / "good").iterdir() if each.suffix != ".sig"):
        opened(path, home)
    watch = Watch(folder, home)
    told = {}
    for path in sorted(each for each in (folder / "bad").iterdir() if each.suffix != ".sig"):
        watch.seen = []
        watch.on = True
        told[path.name] = opened(path, home)
        watch.on = False
        told[path.name]["seen"] = watch.seen
    (folder / "told.json").write_text(json.dumps(told))


main()
