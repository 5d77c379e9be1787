"""Pairs of requests of one size: one as callers send it, and one that is made to cost as much as it can."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tests.storm import CSV, JSON, LINES, Seed

SIZE = 60_000  # bytes; a head may have 64 KiB


class Pair(NamedTuple):
    """What costs much, and what is usual, byte for byte."""

    name: str
    worst: bytes
    usual: bytes


def pairs(row: Mapping[str, Any], kinds: Mapping[str, str]) -> Iterator[Pair]:
    """Give all pairs."""
    for name, body in bodies(row):
        for path in ("/predict", "/invocations"):
            yield _pair(f"{path} {name}", path, JSON, body, _rows(row, len(body)))
    for name, body in wrapped(row):
        yield _pair(f"/invocations {name}", "/invocations", JSON, body, _split(row, len(body)))
    for name, body in tensors(row, kinds):
        usual = _tensors(row, kinds, len(body))
        yield _pair(f"infer {name}", "/v2/models/storm/infer", JSON, body, usual)
    for name, body in lines(row):
        for path in ("/predict", "/invocations"):
            yield _pair(f"{path} csv {name}", path, CSV, body, _csv(row, len(body)))
    nested = b"\n".join([b"{}"] * (SIZE // 3))
    yield _pair("lines", "/invocations", LINES, nested, b"\n".join([json.dumps(row).encode()] * (SIZE // 110)))
    yield from heads(row)


def _pair(name: str, path: str, kind: str, worst: bytes, usual: bytes) -> Pair:
    headers = {"Content-Type": kind}
    return Pair(name, Seed("POST", path, worst, headers).wire("a"), Seed("POST", path, usual, headers).wire("a"))


def _rows(row: Mapping[str, Any], size: int) -> bytes:
    one = json.dumps(row)
    return ("[" + ",".join([one] * max(1, size // (len(one) + 1))) + "]").encode()


def _split(row: Mapping[str, Any], size: int) -> bytes:
    n = max(1, (size - 100) // (len(json.dumps(list(row.values()))) + 2))
    return json.dumps({"dataframe_split": {"columns": [*row], "data": [[*row.values()]] * n}}).encode()


def _tensors(row: Mapping[str, Any], kinds: Mapping[str, str], size: int) -> bytes:
    n = max(1, size // len(json.dumps(list(row.values()))))
    inputs = [{"name": name, "datatype": kinds[name], "shape": [n, 1], "data": [row[name]] * n} for name in row]
    return json.dumps({"inputs": inputs}).encode()


def _csv(row: Mapping[str, Any], size: int) -> bytes:
    line = ",".join(map(str, row.values()))
    return "\n".join([",".join(row), *[line] * max(1, size // (len(line) + 1))]).encode() + b"\n"


def _filled(row: Mapping[str, Any], name: str, text: str) -> bytes:
    return json.dumps({**row, name: "@"}).replace('"@"', text).encode()


def bodies(row: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """JSON that is deep, wide, repeated, long, or wrong in every row."""
    n = SIZE

    def many(form: str) -> bytes:
        one = len(form.format(0)) + 5
        return ("[" + ",".join(form.format(number) for number in range(n // one)) + "]").encode()

    inner = json.dumps({name: value for name, value in row.items() if name != "age"})[1:-1].replace("{", "{{")
    yield "deep lists", b"[" * (n // 2) + b"]" * (n // 2)
    yield "deep within a row", _filled(row, "note", "[" * 30_000 + "]" * 30_000)
    yield "60 deep, wide", _filled(row, "note", "[" + ",".join(["[" * 50 + "]" * 50] * 600) + "]")
    yield "empty lists", _filled(row, "note", "[" + ",".join(["[]"] * (n // 3)) + "]")
    yield "unknown names", json.dumps({**row, **{f"u{number}": 1 for number in range(n // 12)}}).encode()
    yield "near names", json.dumps({f"ag{number:x}"[:5]: 1 for number in range(5000)}).encode()
    yield (
        "near names of a length",
        json.dumps({"inco" + "é" * (number % 50) + str(number): 1 for number in range(800)}).encode(),
    )
    yield "one name again", ("{" + ",".join(['"age":1'] * (n // 8)) + "}").encode()
    yield "long name", json.dumps({"a" * n: 1}).encode()
    yield "long name escaped", ('{"' + "\\u0061" * (n // 6) + '":1}').encode()
    yield "long text", _filled(row, "note", '"' + "ab " * (n // 3) + '"')
    yield "long text of one word", _filled(row, "note", '"' + "a" * n + '"')
    yield "escapes", _filled(row, "note", '"' + "\\u00e9" * (n // 6) + '"')
    yield "capitals", _filled(row, "note", '"' + "İ" * (n // 2) + '"')
    yield "marks", _filled(row, "note", '"a' + "\u0300\u0323" * (n // 4) + '"')
    yield "long category", _filled(row, "plan", '"' + "a" * n + '"')
    yield "long integer", _filled(row, "age", "9" * n)
    yield "long fraction", _filled(row, "income", "0." + "9" * n)
    yield "long zero", _filled(row, "income", "0." + "0" * n + "1")
    yield "long exponent", _filled(row, "income", "1e" + "9" * n)
    yield "numbers in a list", _filled(row, "age", "[" + ",".join(["1.7976931348623157e308"] * (n // 24)) + "]")
    yield "other categories", many('{{"plan":"p{}",' + inner.replace('"plan": "a", ', "") + "}}")
    yield "ages out of range", many('{{"age":1{:04d},' + inner + "}}")
    yield "ages of no kind", many('{{"age":"x{}",' + inner + "}}")
    yield "a name of its own in each", many('{{"n{}":1,' + inner + "}}")
    yield "no names", many("{{}}")[: 2 * 9_999] + b"]"
    yield "names alone", many('{{"n{}":0}}')
    yield "nulls", b"[" + b",".join([b"null"] * (n // 5)) + b"]"
    yield "blanks", json.dumps(row).encode() + b" " * n
    yield "blanks before", b"\n" * n + b"x"
    yield "quotes", b"NaN" + b'"' * n
    yield "quotes escaped", b"NaN" + rb"\"" * (n // 2)
    yield "NaN", b"[" + b"NaN," * (n // 4) + b"1]"
    yield "NaN in a row", _filled(row, "age", "[" + "NaN," * (n // 4) + "1]")
    yield "no UTF-8 at the end", _filled(row, "note", '"' + "é" * (n // 2) + '"')[:-2] + b'\xff"}'


def wrapped(row: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """The forms of MLflow's server, filled with what they were not made for."""
    names, values = [*row], [*row.values()]
    many = [f"c{number}" for number in range(6000)]
    for name, found in {
        "columns": {"dataframe_split": {"columns": many, "data": [[1] * 6000]}},
        "columns alone": {"dataframe_split": {"columns": many, "data": []}},
        "one column again": {"dataframe_split": {"columns": ["age"] * 6000, "data": [[1] * 6000]}},
        "short rows": {"dataframe_split": {"columns": names, "data": [[]] * 9999}},
        "rows and a short one": {"dataframe_split": {"columns": names, "data": [values] * 900 + [[]]}},
        "long index": {"dataframe_split": {"columns": names, "index": [*range(9000)], "data": [values]}},
        "inputs": {"inputs": {each: [1] for each in many}},
        "inputs of two lengths": {"inputs": {**{each: [1] for each in many}, "age": []}},
        "instances of numbers": {"instances": [1] * 9999},
        "instances of lists": {"instances": [[[]]] * 9999},
        "records": {"dataframe_records": [{}] * 9999},
        "parameters": {"dataframe_records": [row], "params": dict.fromkeys(many, 1)},
    }.items():
        yield name, json.dumps(found).encode()


def tensors(row: Mapping[str, Any], kinds: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """Tensors that are many, long in one direction, or not there."""

    def one(name: str, kind: str, shape: Sequence[int], data: object) -> dict[str, object]:
        return {"name": name, "datatype": kind, "shape": shape, "data": data}

    for name, inputs in {
        "many tensors": [one(f"t{number}", "INT64", [1, 1], [1]) for number in range(800)],
        "one tensor again": [one("age", "INT64", [1, 1], [1])] * 800,
        "long shape": [one("age", "INT64", [1] * 20_000, [1])],
        "large shape": [one("age", "INT64", [2**31, 2**31, 2**31], [1])],
        "deep data": [one("age", "INT64", [1, 1], json.loads("[" * 60 + "]" * 60))] * 300,
        "empty data": [one("age", "INT64", [9999, 1], [[]] * 9999)],
        "no rows": [one("age", "INT64", [0, 1], [])] * 900,
        "numbers as texts": [one("age", "INT64", [9999, 1], ["1"] * 9999)],
        "texts": [one("note", "BYTES", [9999, 1], [""] * 9999)],
    }.items():
        yield name, json.dumps({"inputs": inputs}).encode()
    usual = json.loads(_tensors(row, kinds, 500))
    yield "outputs", json.dumps({**usual, "outputs": [{"name": f"o{number}"} for number in range(3000)]}).encode()
    yield "parameters", json.dumps({**usual, "parameters": {f"p{number}": 1 for number in range(4000)}}).encode()
    yield "quotes", json.dumps(usual).encode() + b"NaN" + rb"\"" * (SIZE // 2)


def lines(row: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """CSV that is wide, empty, quoted or ragged."""
    n, head, line = SIZE, ",".join(row), ",".join(map(str, row.values()))
    rows = n // (len(line) + 1)
    yield (
        "columns",
        (",".join(f"c{number}" for number in range(n // 12)) + "\n" + "1," * (n // 12 - 1) + "1\n").encode(),
    )
    yield "one column again", (",".join(["a"] * (n // 4)) + "\n" + "1," * (n // 4 - 1) + "1\n").encode()
    yield "empty lines", (head + "\n" * n).encode()
    yield "empty cells", (head + "\n" + ",,,,,\n" * (n // 6)).encode()
    yield "no end of a quote", (head + '\n"' + "\n" * n).encode()
    yield "quotes", (head + '\n"' + '""' * (n // 2) + '",1,1,1,1,1\n').encode()
    yield "carriage returns", (head + "\r" * n).encode()
    yield "a long cell", (head + "\n" + "1" * n + ",1,a,north,true,x\n").encode()
    yield "a long line", (head + "\n" + "," * n + "\n").encode()
    yield "ragged at the end", "\n".join([head, *[line] * rows, "1"]).encode()
    yield "other categories", "\n".join([head, *(line.replace(",a,", f",p{each},") for each in range(rows))]).encode()
    yield "no numbers", "\n".join([head, *[line.replace("40", "1_0")] * rows]).encode()
    yield "blanks", "\n".join([head, *[line.replace(",", "  ,")] * (rows // 2)]).encode()
    yield "NUL", (head + "\n" + "\0" * n).encode()


def heads(row: Mapping[str, Any]) -> Iterator[Pair]:
    """Headers and targets of the largest size."""
    body = json.dumps(row).encode()
    n = SIZE

    def pair(name: str, path: str, *headers: bytes, method: str = "POST", target: bytes = b"") -> Pair:
        seed = Seed(method, path, body if method == "POST" else b"", {"Content-Type": JSON} if method == "POST" else {})
        if any(each.lower().startswith(b"content-type") for each in headers):
            seed = Seed(method, path, seed.body)
        worst = seed.wire("a", path=target, more=headers)
        plain = seed.wire("a")
        padding = [b"X-%x: %b" % (number, b"a" * 1000) for number in range(1, (len(worst) - len(plain)) // 1007 + 1)]
        return Pair(f"head: {name} {path}", worst, seed.wire("a", more=padding))

    for path in ("/predict", "/invocations"):
        yield pair("many", path, *(b"%x: " % number for number in range(n // 9)))
        yield pair("again", path, *[b"a: "] * (n // 6))
        yield pair("many and one again", path, *(b"%x:" % number for number in range(n // 9)), b"a:", b"a:")
        yield pair("underscores", path, *(b"%x_:" % number for number in range(n // 9)))
        for name, text in {
            "Accept": b"a/b," * (n // 4),
            "accept": b"a/b;q=0.1;" * (n // 10) + b",*/*",
            "ACCEPT": b"*/*;" + b" " * n,
            "accepT": b"a/b;" + b"q=" * (n // 2),
            "Accept-Language": b"pt-BR;q=0.1," * (n // 12),
            "Cookie": b"a=b;" * (n // 4),
            "cookie": b"a" * n,
            "Authorization": b"Basic " + b"QUFB" * (n // 4),
            "X-API-Key": b"a" * n,
            "Content-Type": b"application/json" + b";a=b" * (n // 4),
            "content-type": b"text/csv" + b";" * n,
            "X-Request-ID": b"a" * n,
            "Content-Encoding": b"gzip," * (n // 5),
            "Range": b"bytes=" + b"0-1," * (n // 4),
            "If-None-Match": b'"a",' * (n // 4),
            "X-Forwarded-For": b"1.1.1.1," * (n // 8),
            "Connection": b"a," * (n // 2),
        }.items():
            yield pair(f"long {name}", path, name.encode() + b": " + text)
    for name, target in {
        "long": b"/" + b"a" * n,
        "deep": b"/a" * (n // 2),
        "slashes": b"/" * n,
        "escapes": b"/" + b"%41" * (n // 3),
        "dots": b"/.." * (n // 3),
        "models": b"/models/" + b"a" * n + b"/predict",
        "models, deep": b"/models" * (n // 7),
        "v2": b"/v2/models/" + b"a" * (n // 2) + b"/versions/" + b"b" * (n // 2),
        "query": b"/schema?" + b"a&" * (n // 2),
        "pairs": b"/schema?" + b"a=b&" * (n // 4),
        "languages": b"/?lang=" + b"%20" * (n // 3),
    }.items():
        yield pair(f"target {name}", "/schema", method="GET", target=target)
    yield pair("target of pairs", "/explain", target=b"/explain?" + b"lang=a&target=b&" * (n // 16))
    one = b"".join(b"1\r\n%c\r\n" % byte for byte in body + b" " * (n // 6)) + b"0\r\n\r\n"
    start = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    whole = body + b" " * (len(one) - len(body) - 11)
    yield Pair("chunks of a byte", start + one, start + b"%x\r\n%b\r\n0\r\n\r\n" % (len(whole), whole))
