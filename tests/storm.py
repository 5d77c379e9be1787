# ruff: noqa: E501, RUF001 (texts that look like others are the point)
"""Hostile requests by the million, generated in families: bytes changed, JSON and texts of every kind."""

import json
import random
import struct
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple
from urllib.parse import quote_from_bytes

from ketch.serve.pages import SITE

JSON = "application/json"
CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
BINARY = "application/octet-stream"
LINES = "application/jsonlines"


class Shot(NamedTuple):
    """Bytes for a connection, and what is known of their fate.

    A `framed` one is a whole request whatever it asks: it has one answer, and the connection goes on after it.
    """

    data: bytes
    family: str
    framed: bool = True
    request_id: bytes = b""
    method: str = "POST"
    refused: bool = False  # no answer but a refusal will do
    golden: bytes = b""  # the one answer that will do


@dataclass(frozen=True)
class Seed:
    """A valid request."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def json(self) -> bool:
        return self.headers.get("Content-Type") == JSON

    def wire(self, request_id: str = "", *, path: bytes = b"", more: Sequence[bytes] = ()) -> bytes:
        """Write it as it goes over the wire."""
        lines = [b"%b %b HTTP/1.1" % (self.method.encode(), path or self.path.encode()), b"Host: localhost"]
        lines += [f"{name}: {value}".encode("latin-1") for name, value in self.headers.items()]
        if request_id:
            lines.append(b"X-Request-ID: %b" % request_id.encode())
        if self.body or self.method in {"POST", "PUT", "PATCH"}:
            lines.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join([*lines, *more, b"", self.body])


# ---- valid requests ----------------------------------------------------------------------------------


def tensors_in_json(columns: Mapping[str, tuple[str, Sequence[Any]]]) -> dict[str, Any]:
    inputs = [
        {"name": name, "datatype": kind, "shape": [len(values), 1], "data": list(values)}
        for name, (kind, values) in columns.items()
    ]
    return {"id": "7", "inputs": inputs}


def tensors_in_binary(columns: Mapping[str, tuple[str, Sequence[Any]]]) -> tuple[int, bytes]:
    """Write tensors after their JSON; give the length of the JSON too."""
    inputs, rest = [], b""
    for name, (kind, values) in columns.items():
        data = b"".join(_element(kind, value) for value in values)
        parameters = {"binary_data_size": len(data)}
        inputs.append({"name": name, "datatype": kind, "shape": [len(values), 1], "parameters": parameters})
        rest += data
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    return len(head), head + rest


def _element(kind: str, value: Any) -> bytes:
    if kind == "BYTES":
        text = str(value).encode()
        return struct.pack("<I", len(text)) + text
    return struct.pack({"INT64": "<q", "FP64": "<d", "BOOL": "<?"}[kind], value)


def posts(
    model: str, version: str, rows: Sequence[dict[str, Any]], tables: Mapping[str, bytes], kinds: Mapping[str, str]
) -> list[Seed]:
    """Ask a model in every form that there is: at its own routes, at those of all platforms."""
    one, many = json.dumps(rows[0]).encode(), json.dumps(rows).encode()
    names = list(rows[0])
    lists = [[row[name] for name in names] for row in rows]
    split = {"columns": names, "index": list(range(len(rows))), "data": lists}
    columns = {name: [row[name] for row in rows] for name in names}
    given = {name: (kinds[name], columns[name]) for name in names if None not in columns[name]}
    long, binary = tensors_in_binary(given)
    below = f"/models/{model}"
    infer = f"/v2/models/{model}/infer"
    wrapped = {
        "dataframe_split": split,
        "dataframe_records": rows,
        "instances": lists,
        "inputs": columns,
    }
    text = {"Content-Type": JSON}
    found = [
        Seed("POST", "/predict", one, text),
        Seed("POST", "/predict", many, text),
        Seed("POST", "/predict", many, {**text, "Accept": "text/csv;q=0.5, application/json;q=0.1"}),
        Seed("POST", "/explain?lang=pt", one, text),
        *(Seed("POST", "/predict", body, {"Content-Type": kind}) for kind, body in tables.items()),
        *(Seed("POST", "/invocations", json.dumps({name: inside}).encode(), text) for name, inside in wrapped.items()),
        Seed("POST", "/invocations", tables[CSV], {"Content-Type": CSV}),
        Seed("POST", "/invocations", b"\n".join(json.dumps(row).encode() for row in rows), {"Content-Type": LINES}),
        Seed("POST", "/score", json.dumps({"input_data": split}).encode(), text),
        Seed("POST", "/score", json.dumps({"data": rows}).encode(), text),
    ]
    found += [replace(each, path=below + each.path) for each in found]
    kind = {"Content-Type": BINARY, "Inference-Header-Content-Length": str(long)}
    return [
        *found,
        Seed("POST", infer, json.dumps(tensors_in_json(given)).encode(), text),
        Seed("POST", infer, binary, kind),
        Seed("POST", f"/v2/models/{model}/versions/{version}/infer", binary, kind),
        Seed("POST", "/v2/repository/index", b"{}", text),
    ]


def gets(model: str, version: str) -> list[Seed]:
    """Read what there is to read."""
    paths = ["/", "/form", "/schema", "/openapi.json", "/docs", "/docs/start.js"]
    paths += [f"/models/{model}{path}" for path in paths]
    paths += ["/health/live", "/health/ready", "/metrics", "/ping", "/version", "/v2", "/v2/health/live"]
    paths += ["/v2/health/ready", f"/v2/models/{model}", f"/v2/models/{model}/ready"]
    paths += [f"/v2/models/{model}/versions/{version}", f"/v2/models/{model}/versions/{version}/ready"]
    paths += ["/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", *(f"/site/{name}" for name in SITE)]
    return [Seed("GET", path) for path in paths]


# ---- bytes changed -----------------------------------------------------------------------------------

TOKENS: Final = tuple(
    token.encode("latin-1")
    for token in (
        *("\r\n", "\n", "\r", "\0", "\x0b", " ", "\t", ":", ",", ";", "\r\n\r\n", "0\r\n\r\n", "5\r\nhello\r\n", "%00"),
        *("Content-Length: 5\r\n", "Content-Length: -1\r\n", "Transfer-Encoding: chunked\r\n", "Host: evil\r\n"),
        *("Expect: 100-continue\r\n", "Connection: close\r\n", "Connection: upgrade\r\nUpgrade: h2c\r\n"),
        *("HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.1", "%2f", "%2e%2e/", "../", "//", "/models/", "?", "#", "*"),
        *(
            "null",
            "true",
            "NaN",
            "-Infinity",
            "1e999",
            "-0.0",
            "9007199254740993",
            "9" * 400,
            "0x10",
            "1_000",
            "1e-400",
        ),
        *('"', "\\", '\\"', "\\u0000", "\\ud800", "[", "]", "{", "}", "[[[[[[[[", '{"a":', "\xff\xfe", "\xef\xbb\xbf"),
        *("\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "PAR1", "ARROW1", "\xff\xff\xff\xff", "\x00\x00\x00\x80"),
        *("columns", "data", "inputs", "instances", "shape", "datatype", "BYTES", "INT64", "binary_data_size", "age"),
    )
)


def _flip(chance: random.Random, data: bytearray, other: bytes) -> None:
    for _ in range(chance.choice((1, 1, 2, 8))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _delete(chance: random.Random, data: bytearray, _: bytes) -> None:
    at = chance.randrange(len(data))
    del data[at : at + chance.choice((1, 2, 4, 16, 64))]


def _double(chance: random.Random, data: bytearray, _: bytes) -> None:
    at = chance.randrange(len(data))
    part = data[at : at + chance.choice((1, 4, 16, 64, 256))]
    data[at:at] = part * chance.choice((1, 1, 3, 50))


def _splice(chance: random.Random, data: bytearray, other: bytes) -> None:
    at, there = chance.randrange(len(data)), chance.randrange(len(other) or 1)
    long = chance.choice((4, 16, 64, 256))
    data[at : at + chance.choice((0, long))] = other[there : there + long]


def _insert(chance: random.Random, data: bytearray, _: bytes) -> None:
    at = chance.randrange(len(data))
    data[at : at + chance.choice((0, 0, 1, 4))] = chance.choice(TOKENS)


def _noise(chance: random.Random, data: bytearray, _: bytes) -> None:
    at = chance.randrange(len(data))
    long = chance.choice((1, 2, 8, 32))
    data[at : at + long] = chance.randbytes(long)


def _cut(chance: random.Random, data: bytearray, _: bytes) -> None:
    del data[chance.randrange(len(data)) :]


def _swap(chance: random.Random, data: bytearray, _: bytes) -> None:
    a, b = sorted(chance.randrange(len(data)) for _ in range(2))
    data[:] = data[:a] + data[b:] + data[a:b]


Change = Callable[[random.Random, bytearray, bytes], None]
CHANGES: Final[tuple[Change, ...]] = (_flip, _flip, _delete, _double, _splice, _insert, _insert, _noise, _cut, _swap)


def changed(chance: random.Random, data: bytes, other: bytes) -> bytes:
    """Change some bytes."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        if found:
            chance.choice(CHANGES)(chance, found, other)
    return bytes(found)


class Storm:
    """An endless source of volleys: a few framed requests of which parts are changed, and one whose every byte may be."""

    def __init__(self, seeds: Sequence[Seed], golden: Sequence[tuple[Seed, bytes]], seed: int, framed: int = 7) -> None:
        self.chance = random.Random(seed)
        self.asked = [each for each in seeds if each.method == "POST"]
        self.read = [each for each in seeds if each.method == "GET"]
        self.golden, self.framed = golden, framed
        self.texts = strings()
        self.number = seed * 10**9

    def __iter__(self) -> Iterator[list[Shot]]:
        while True:
            yield [*(self.one() for _ in range(self.framed)), self.broken()]

    def questions(self) -> list[Shot]:
        """Ask what has a known answer."""
        found = []
        for seed, answer in self.golden:
            name = self.name()
            found.append(Shot(seed.wire(name), "golden", request_id=name.encode(), golden=answer))
        return found

    def name(self) -> str:
        self.number += 1
        return f"storm-{self.number}"

    def _seed(self) -> Seed:
        return self.chance.choice(self.asked if self.chance.random() < 0.95 else self.read)

    def one(self) -> Shot:
        """Change what is inside a request."""
        seed, name, kind = self._seed(), self.name(), self.chance.random()
        if kind < 0.75 and seed.body:
            seed = replace(seed, body=changed(self.chance, seed.body, self.chance.choice(self.asked).body))
            refused = seed.path == "/predict" and seed.json and not is_json(seed.body)
            return Shot(seed.wire(name), "body", request_id=name.encode(), refused=refused)
        if kind < 0.85:
            path = seed.path.encode().split(b"/")
            path[self.chance.randrange(1, len(path))] = quote_from_bytes(self._text(200), safe="%?&=;:@").encode()
            return Shot(seed.wire(name, path=b"/".join(path)), "path", request_id=name.encode(), method=seed.method)
        if kind < 0.95:
            return self._header(seed)
        seed = replace(seed, method=self.chance.choice(METHODS))
        return Shot(seed.wire(name), "method", request_id=name.encode(), method=seed.method)

    def _header(self, seed: Seed) -> Shot:
        """Give one header a value that no client would; the bytes that end a header stay out of it."""
        header = self.chance.choice(HEADERS)
        value = bytes(byte for byte in self._text(2000) if byte >= 32 and byte != 127)
        kept = {name: given for name, given in seed.headers.items() if name != header}
        name = "" if header == "X-Request-ID" else self.name()
        wire = replace(seed, headers=kept).wire(name, more=[header.encode() + b": " + value])
        return Shot(wire, "header", request_id=name.encode(), method=seed.method)

    def _text(self, longest: int) -> bytes:
        text = self.chance.choice(self.texts).encode("utf-8", "surrogatepass")
        if self.chance.random() < 0.3:
            text = changed(self.chance, text or b"x", self.chance.choice(TOKENS))
        return text[:longest]

    def broken(self) -> Shot:
        """Change any byte of a request."""
        seed = self._seed()
        return Shot(changed(self.chance, seed.wire(), self._seed().wire()), "bytes", framed=False, method=seed.method)


METHODS: Final = ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "POST", "SEARCH", "LINK")
HEADERS: Final = (
    *("Content-Type", "Accept", "X-Request-ID", "Authorization", "X-API-Key", "Accept-Language", "Cookie", "Origin"),
    *("Content-Encoding", "Inference-Header-Content-Length", "Ketch-Key", "X-Forwarded-For", "X-Forwarded-Host"),
    *("Forwarded", "Range", "If-None-Match", "Traceparent", "User-Agent", "Access-Control-Request-Method", "TE", "Via"),
    *(
        "X-Forwarded-Proto",
        "X-Original-URL",
        "X-HTTP-Method-Override",
        "Content-Disposition",
        "Referer",
        "X-Ü"[:2] + "y",
    ),
)


# ---- texts -------------------------------------------------------------------------------------------


def strings() -> list[str]:
    """Give texts that break what does not expect them."""
    found = [
        "",
        " ",
        "\t",
        "\0",
        "a\0b",
        "\x7f",
        "\x1b[31m",
        "\r\n",
        "a\r\nSet-Cookie: b=c",
        "\u2028",
        "\u2029",
        "\ufeff",
    ]
    for category in sorted({unicodedata.category(chr(point)) for point in range(0x30000)}):
        points = [point for point in range(0x30000) if unicodedata.category(chr(point)) == category]
        found += [chr(points[0]), chr(points[-1]), "".join(map(chr, points[:: max(1, len(points) // 40)][:40]))]
    found += [
        chr(point) for point in (*range(0x20), *range(0x7F, 0xA1), 0x200B, 0x200D, 0x200E, 0x202E, 0x2066, 0x10FFFF)
    ]
    found += [
        "\u202e" + "tfel ot thgir",
        "مرحبا",
        "שלום",
        "a" + "\u0300" * 200,
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    ]
    found += [
        "ﬀ",
        "ß",
        "İ",
        "ı",
        "ǅ",
        "Å",
        "A\u030a",
        "½",
        "٣",
        "１２",
        "\u1e9e",
        "ΰ",
        "日本語",
        "🏳️\u200d🌈",
        "Z\u0351\u036b",
    ]
    found += [
        "nil",
        "None",
        "null",
        "undefined",
        "NaN",
        "-nan",
        "inf",
        "-Infinity",
        "true",
        "False",
        "0x1F",
        "1e999",
        "1/0",
    ]
    found += [
        "-0",
        "00",
        "1,000",
        "1_000",
        "１",
        "0b1",
        "2**64",
        str(2**63),
        str(-(2**63) - 1),
        str(2**64),
        "1e-400",
        "1.",
    ]
    found += [
        "' OR 1=1 --",
        '"; DROP TABLE log; --',
        "1;SELECT pg_sleep(9)",
        "%27%20--",
        "\\'",
        "\\",
        '"',
        "'",
        "`",
        "´",
    ]
    found += [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "&lt;b&gt;",
        "]]>",
        "<!--",
        "</title>",
        "javascript:0",
    ]
    found += [
        "$(touch x)",
        "`id`",
        "| cat",
        "; ls",
        "&& ls",
        "> x",
        "${HOME}",
        "$HOME",
        "%PATH%",
        "~root",
        "!!",
        "*",
        "?",
        "[a-",
    ]
    found += [
        "{}",
        "{0}",
        "{0.__class__.__mro__}",
        "{{7*7}}",
        "${7*7}",
        "%s%s%s%n",
        "%d",
        "%(x)s",
        "#{7}",
        "<%= 7 %>",
        "@{7}",
    ]
    found += [
        "../../../../etc/hosts",
        "..\\..\\x",
        "/dev/null",
        "C:\\x",
        "\\\\h\\x",
        "file:///x",
        "CON",
        "NUL",
        "..",
        ".",
        "//x",
    ]
    found += [
        "__proto__",
        "constructor",
        "__class__",
        "__init__",
        "self",
        "f0",
        "f1",
        "row",
        "errors",
        "toString",
        "$ref",
        "type",
    ]
    found += [
        "=1+1",
        "+1+1",
        "-1+1",
        "@SUM(1)",
        "=cmd|' /C calc'!A0",
        "(a+)+$",
        "^(.*)*$",
        "a" * 100,
        "ab" * 1000,
        "😀" * 500,
    ]
    found += [
        "Bearer ",
        "Basic Og==",
        "Basic " + "A" * 300,
        "Bearer a.b.c",
        "Basic \xff",
        "Bearer eyJhbGciOiJub25lIn0.e30.",
    ]
    found += [
        "gzip",
        "br, gzip",
        "identity",
        "identity;q=0",
        "*/*",
        "text/*;q=0",
        "a/b;q=2",
        ",,,,",
        ";;;",
        "q=",
        "text/csv; header=",
    ]
    found += [
        "bytes=0-",
        "bytes=" + "0-,1-," * 200,
        "W/",
        "http://localhost",
        "null, null",
        "localhost:99999",
        "[::1",
        "1.2.3",
    ]
    found += [
        "text/csv; charset=utf-16",
        "application/x+json",
        "multipart/form-data; boundary=" + "x" * 500,
        "a" * 1500,
    ]
    return found


# ---- JSON --------------------------------------------------------------------------------------------


def is_json(data: bytes) -> bool:
    """Say what another reader makes of it; true where readers may differ."""
    try:
        json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (RecursionError, ValueError):
        return False
    return True


def _no_constant(name: str) -> None:
    raise ValueError(name)


def numbers() -> list[str]:
    """Write numbers, and what some take for numbers."""
    found = [
        "0",
        "-0",
        "0.0",
        "-0.0",
        "1",
        "-1",
        "1.0",
        "1e0",
        "1E+2",
        "1e-2",
        "123456789",
        "0.1",
        "1e308",
        "1.7976931348623157e308",
    ]
    found += [
        "1e309",
        "-1e309",
        "1e999",
        "1e-400",
        "5e-324",
        "2.2250738585072014e-308",
        "9007199254740993",
        "9007199254740992.5",
    ]
    found += [
        str(2**53),
        str(2**53 + 1),
        str(-(2**53) - 1),
        str(2**63),
        str(-(2**63) - 1),
        str(2**64),
        str(10**30),
        "9" * 400,
    ]
    found += [
        "1" + "0" * 308,
        "1" + "0" * 309,
        "0." + "0" * 400 + "1",
        "1." + "9" * 5000,
        "9" * 5000,
        "1e" + "9" * 400,
        "1e-" + "9" * 400,
    ]
    found += [
        "+1",
        "01",
        "-01",
        "1.",
        ".5",
        "-.5",
        "1.e1",
        "1e",
        "1e+",
        "0e",
        "0x1",
        "1_0",
        "1,0",
        "--1",
        "-",
        "1-1",
        "1 000",
        "- 1",
    ]
    found += [
        "NaN",
        "-NaN",
        "nan",
        "Infinity",
        "-Infinity",
        "inf",
        "１",
        "1\u00a0",
        "1f",
        "1L",
        "0b1",
        "1e1.5",
        "1.2.3",
        "-a",
        "1a",
        "∞",
    ]
    return found


def json_values() -> list[bytes]:
    """Write values of every kind, most of them none."""
    found = [each.encode() for each in numbers()]
    found += [
        b"null",
        b"true",
        b"false",
        b"nul",
        b"True",
        b"tru",
        b"nulll",
        b"TRUE",
        b"",
        b" ",
        b"undefined",
        b"'a'",
        b"a",
    ]
    found += [b'"' + bytes([byte]) + b'"' for byte in (*range(0x20), 0x7F, 0x80, 0xC0, 0xE9, 0xF5, 0xFE, 0xFF)]
    found += [b'"\\' + bytes([byte]) + b'"' for byte in range(0x20, 0x7F)]
    escapes = "u u1 u12 u123 uD83D uDE00 uD83D\\uDE00 uDE00\\uD83D uD83D\\n uD83Dx ud800\\ud800 u0000 uFFFF uFEFF u00ZZ U0041 x41 101"
    found += [b'"\\' + each.encode() + b'"' for each in escapes.split()]
    wild = [
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf0\x80\x80\x80",
        b"\xf4\x90\x80\x80",
    ]
    wild += [
        b"\xe2\x82",
        b"\xf0\x9f\x98",
        b"\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xff\xfe",
        b"\xef\xbf\xbf",
        b"\xe2\x80\xa8",
        b"\xcc\x80",
    ]
    found += [b'"' + each + b'"' for each in wild]
    found += [
        b'"',
        b'"a',
        b'a"',
        b'"a\\',
        b'"\\"',
        b'"a"b',
        b'"a" "b"',
        b'"' + b"x" * 100_000 + b'"',
        b'"' + b"\\u0041" * 20_000 + b'"',
    ]
    found += [
        b"[]",
        b"[1]",
        b"[1,]",
        b"[,1]",
        b"[1,,2]",
        b"[1 2]",
        b"[",
        b"]",
        b"[]]",
        b"[[]",
        b"[1:2]",
        b"[a]",
        b"[1}",
        b"[\n1\n]",
    ]
    found += [
        b"{}",
        b"{",
        b"}",
        b'{"a"}',
        b'{"a":}',
        b'{"a":1,}',
        b'{,"a":1}',
        b"{a:1}",
        b"{1:1}",
        b'{"a" 1}',
        b'{"a":1 "b":2}',
    ]
    found += [
        b'{"a":1}}',
        b'{"a":1,"a":2}',
        b'{"":1}',
        b'{"\\u0061":1,"a":2}',
        b"{null:1}",
        b'{"a"::1}',
        b'{"a":"b"',
        b'{"a":1]',
        b"{'a':1}",
    ]
    found += [
        b"1 // x",
        b"/* x */ 1",
        b"1 # x",
        b"<null>",
        b"\x0c1",
        b"\xc2\xa01",
        b"\xe2\x80\x8b1",
        b"1\0",
        b"\x001",
        b"`1`",
        b"1;",
        b"[1]x",
    ]
    for depth in (60, 63, 64, 65, 100, 1000, 5000, 250_000):
        found += [b"[" * depth + b"]" * depth, b"[" * depth, b'{"a":' * depth + b"1" + b"}" * depth, b'[{"a":' * depth]
    return found


def json_bodies(row: Mapping[str, Any], fields: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Write bodies: each value alone, in a list, and as the value of each field of a row; whole rows in other forms."""
    names = [json.dumps(each) for each in row]
    for place, value in enumerate(json_values()):
        yield f"value-{place}", value
        yield f"listed-{place}", b"[" + value + b"]"
        for name in fields if len(value) < 100_000 else fields[:1]:
            rest = ", ".join(f"{json.dumps(each)}: {json.dumps(given)}" for each, given in row.items() if each != name)
            yield f"{name}-{place}", b"{%b, %b: %b}" % (rest.encode(), json.dumps(name).encode(), value)
    whole = json.dumps(row)
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-7", "cp037"):
        yield encoding, whole.encode(encoding)
    for place, blank in enumerate(
        ("\t", "\n", "\r\n", "\x0b", "\x0c", "\0", "\u00a0", "\u2003", "\ufeff", "\x1e", " " * 100_000)
    ):
        yield f"before-{place}", (blank + whole).encode()
        yield f"after-{place}", (whole + blank).encode()
        yield f"within-{place}", whole.replace(": ", ":" + blank).encode()
    yield "twice", (whole[:-1] + ", " + whole[1:]).encode()
    yield "two", (whole + whole).encode()
    yield "names-100000", ("{" + ",".join(f'"n{number}":1' for number in range(100_000)) + "}").encode()
    yield "name-100000-times", ("{" + ",".join(['"age":1'] * 100_000) + "}").encode()
    yield "rows-10001", ("[" + ",".join([whole] * 10_001) + "]").encode()
    yield "rows-empty", ("[" + ",".join(["{}"] * 10_000) + "]").encode()
    for name in names:
        for other in (
            name.upper(),
            name[:-1] + ' "',
            name[:-1] + '\\u0000"',
            name[:-1] + '\u200b"',
            name[:2] + '"',
            '"\\ud800"',
        ):
            yield f"name-{name}-{other!r}", whole.replace(name, other).encode()


def text_bodies(row: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Put every text in the place of every value and of a name."""
    for place, text in enumerate(strings()):
        for name in row:
            yield f"text-{name}-{place}", json.dumps({**row, name: text}).encode()
        yield (
            f"text-raw-{place}",
            json.dumps({**row, "note": text}, ensure_ascii=False).encode("utf-8", "surrogatepass"),
        )
        yield f"text-name-{place}", json.dumps({**row, text: 1}).encode()
        yield f"text-instead-{place}", json.dumps({text: 1}).encode()
