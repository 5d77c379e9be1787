"""Texts that are filled in: a Dockerfile, a program, a page of text.

template, what is told --*rendered*--> bytes, in which everything told means nothing but itself
"""

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jinja2

from ketch.errors import KetchError

PLACE: Final = "templates"  # the folder of a room in which they stand


class Code(str):
    """A piece of a program or a Dockerfile that was put together by a room, of what is harmless."""

    __slots__ = ()


@dataclass(frozen=True)
class Templates:
    """The templates of a room: what is told may have these letters, or is refused with an error and a hint."""

    room: str
    letters: re.Pattern[str]
    kind: str
    error: type[KetchError]
    hint: str

    def rendered(self, template: str, told: Mapping[str, Any]) -> bytes:
        """Fill in a template.

        Raises:
            KetchError: what is told would not stand there as it is.
        """
        return self._environment.get_template(f"{template}.jinja").render(**told).encode()

    def harmless(self, value: object) -> str:
        """Give what means nothing but itself in any of the templates.

        Raises:
            KetchError: it has other letters.
        """
        if isinstance(value, Code):
            return value
        if type(value) in {int, float} or (isinstance(value, str) and self.letters.fullmatch(value)):
            return str(value)
        raise self.error(f"{str(value)[:60]!r} cannot stand in a {self.kind}", hint=self.hint)

    @functools.cached_property
    def _environment(self) -> jinja2.Environment:
        made = jinja2.Environment(  # noqa: S701 (no HTML: nothing that would have to be escaped passes `harmless`)
            loader=jinja2.PackageLoader(self.room, PLACE),
            variable_start_string="<<",
            variable_end_string=">>",
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            undefined=jinja2.StrictUndefined,
            finalize=self.harmless,
        )
        made.filters |= {"words": self._words, "settings": self._settings}
        return made

    def _words(self, listed: Any) -> Code:
        return Code(json.dumps([self.harmless(each) for each in listed]))

    def _settings(self, named: Mapping[str, object]) -> Code:
        lines = (f'{self.harmless(name)}="{self.harmless(value)}"' for name, value in named.items())
        return Code(" \\\n    ".join(lines))
