"""Searches code for secrets before it is written into a bundle; a secret found is never shown."""

import ast
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ketch import extras

# tokens that say themselves what they are; of detect-secrets, but for those that guess
PLUGINS: Final = """ArtifactoryDetector AWSKeyDetector AzureStorageKeyDetector BasicAuthDetector CloudantDetector
    DiscordBotTokenDetector GitHubTokenDetector GitLabTokenDetector IbmCloudIamDetector IbmCosHmacDetector
    JwtTokenDetector MailchimpDetector NpmDetector OpenAIDetector PrivateKeyDetector PypiTokenDetector
    SendGridDetector SlackDetector SoftlayerDetector SquareOAuthDetector StripeDetector TelegramBotTokenDetector
    TwilioKeyDetector""".split()
FILTERS: Final = """allowlist.is_line_allowlisted heuristic.is_not_alphanumeric_string
    heuristic.is_prefixed_with_dollar_sign heuristic.is_templated_secret""".split()
GUESSES: Final = "heuristic.is_potential_uuid heuristic.is_sequential_string".split()
NEWER: Final = {  # than the library knows
    "AWS Secret Key": re.compile(r"""(?<=['"])(?=[^'"]*[a-z])(?=[^'"]*[A-Z])(?=[^'"]*\d)[A-Za-z0-9/+]{40}(?=['"])"""),
    "Databricks Token": re.compile(r"\bdapi[0-9a-f]{32}\b"),
    "GitHub Token": re.compile(r"\bgithub_pat_\w{60,}"),
    "Google API Key": re.compile(r"\bAIza[\w-]{35}\b"),
    "Hugging Face Token": re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"),
}
# names that the library's keyword search leaves out, because ordinary code uses them: only with a value like a key
TOKENS: Final = re.compile(r"token|credential|bearer|authorization|access_?key", re.IGNORECASE)
RANDOM: Final = re.compile(r"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[\w./+=-]{16,}")
ALLOWED: Final = "pragma: allowlist secret"


def search(texts: Mapping[str, str]) -> Iterator[tuple[str, int, str]]:
    """Give name, line and kind of each secret in Python sources; a line marked as allowed is left out."""
    for name, text in texts.items():
        lines = text.splitlines()
        found = set(_scan(text, PLUGINS, FILTERS)) | set(_newer(lines))
        pairs = list(_pairs(text))
        written = "\n".join(f'{_keyword(key, value)} = "{_flat(value)}"' for key, value, _ in pairs)
        named = {pairs[line - 1][2] for line, _ in _scan(written, ["KeywordDetector"], [*FILTERS, *GUESSES])}
        taken = {line for line, _ in found}
        found |= {(line, "Secret Keyword") for line in named - taken}
        yield from ((name, line, kind) for line, kind in sorted(found) if ALLOWED not in lines[line - 1])


def _scan(text: str, plugins: Sequence[str], filters: Sequence[str]) -> list[tuple[int, str]]:
    scan, settings = _library()
    chosen = {
        "plugins_used": [{"name": name} for name in plugins],
        "filters_used": [{"path": f"detect_secrets.filters.{name}"} for name in filters],
    }
    with tempfile.TemporaryDirectory() as folder, settings.transient_settings(chosen):
        file = Path(folder, "code.py")
        file.write_text(text, "utf-8", errors="replace")
        return [(secret.line_number, secret.type) for secret in scan.scan_file(str(file))]


def _library() -> tuple[Any, Any]:
    shown = warnings.showwarning
    loaded = extras.load("detect_secrets.core.scan"), extras.load("detect_secrets.settings")
    if warnings.showwarning is not shown:
        logging.captureWarnings(False)  # it makes log records of everybody's warnings, and then nobody sees them
    return loaded


def _newer(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        yield from ((number, kind) for kind, pattern in NEWER.items() if pattern.search(line))


def _keyword(name: str, value: str) -> str:
    return f"{name}_secret" if TOKENS.search(name) and RANDOM.fullmatch(value.split(" ")[-1]) else name


def _flat(value: str) -> str:
    return re.sub(r"[\s\"'`\\]", "_", value)


def _pairs(text: str) -> Iterator[tuple[str, str, int]]:
    """Give each name that is bound to a text, however it is written, with the text and its line."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError):
        return
    for node in nodes:
        for name, value in _bindings(node):
            if isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value:
                yield name, value.value, value.lineno


def _bindings(node: Any) -> Iterator[tuple[str, object]]:
    if isinstance(node, ast.Assign):
        yield from ((_named(target), node.value) for target in node.targets)
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr):
        yield _named(node.target), node.value
    elif isinstance(node, ast.keyword):
        yield node.arg or "", node.value
    elif isinstance(node, ast.Dict):
        yield from ((_named(key), value) for key, value in zip(node.keys, node.values, strict=True))
    elif isinstance(node, ast.Compare):
        yield from ((_named(node.left), value) for value in node.comparators)
    elif isinstance(node, ast.arguments):
        known = [*node.posonlyargs, *node.args][-len(node.defaults) :] if node.defaults else []
        yield from ((each.arg, value) for each, value in zip(known, node.defaults, strict=True))
        yield from ((each.arg, value) for each, value in zip(node.kwonlyargs, node.kw_defaults, strict=True))


def _named(node: object) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Subscript):
        return _named(node.slice)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
