"""Programs of this machine that a plan calls: no shell, and secrets come on standard input or by environment."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ketch.errors import CloudRefused, NotInstalled
from ketch.steps import Hands, shown

SAID = 600  # letters of what a program said last
LOGGED = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d")  # what Kubernetes' programs write for those who make them


@dataclass(frozen=True)
class Command:
    """One call of a program: no shell, and no secret among its words; `environ` and `stdin` may hold some.

    With `parsed`, what it prints is JSON. `reasons` are texts by which it is recognised why it refused: when one stands
    in what it said, the code of the refusal is what stands beside it, else `failed`; `hints` are remedies by it.
    """

    words: tuple[str, ...]
    stdin: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    parsed: bool = False
    reasons: Mapping[str, str] = field(default_factory=dict)
    hint: str = ""
    hints: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""

    def sent(self) -> Mapping[str, object]:
        """Say what is run."""
        told: dict[str, object] = {"run": [str(shown(each)) for each in self.words]}
        told |= {"stdin": shown(self.stdin)} if self.stdin else {}
        return told | ({"environ": dict.fromkeys(self.environ, "(set)")} if self.environ else {})

    def done(self, hands: Hands) -> Any:
        """Run it, and give what it prints.

        Raises:
            NotInstalled: there is no such program. CloudRefused: it did not succeed.
        """
        program = self.words[0]
        if shutil.which(program, path=hands.environ.get("PATH")) is None:
            raise NotInstalled(f"{program} is not on this machine", hint=self.hint or f"Install {program}.")
        done = subprocess.run(
            self.words,
            input=self.stdin,
            env={**hands.environ, **self.environ},
            cwd=self.folder or None,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        if done.returncode:
            raise self._refused(done.stderr.strip() or done.stdout.strip())
        return self._read(done.stdout) if self.parsed else done.stdout

    def _read(self, said: str) -> Any:
        try:
            return msgspec.json.decode(said)
        except msgspec.DecodeError:
            raise self._refused(f"it says {said[:SAID]!r}, which is no JSON") from None

    def _refused(self, said: str) -> CloudRefused:
        reason = next((code for text, code in self.reasons.items() if text in said), "failed")
        said = "\n".join(line for line in said.splitlines() if not LOGGED.match(line)) or said
        what = " ".join(self.words[:3])
        return CloudRefused(f"{what} failed: {said[-SAID:]}", reason=reason, hint=self.hints.get(reason, self.hint))
