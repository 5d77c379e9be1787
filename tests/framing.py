# ruff: noqa: E501
"""What goes wrong around a request: lengths that contradict each other, lines that end elsewhere, other protocols.

Where two readers may disagree on where a request ends, a second one is hidden in what they disagree on.
"""

from collections.abc import Iterator
from typing import NamedTuple

from tests.storm import Shot

TAKEN, REFUSED, EITHER = "taken", "refused", "either"
SLOW = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"


class Case(NamedTuple):
    """Bytes for a connection; `fate` says whether they must be answered with 200, must be refused, or may be either."""

    name: str
    data: bytes
    fate: str
    most: int = 1  # answers

    @property
    def shot(self) -> Shot:
        return Shot(self.data, f"{self.fate}: {self.name}", framed=False)


class Framing:
    """All cases, around a valid body and with a second request to hide."""

    def __init__(self, body: bytes, hidden: bytes) -> None:
        self.body, self.hidden = body, hidden

    def __iter__(self) -> Iterator[Case]:
        for family in (self.lengths, self.transfers, self.chunks, self.lines, self.targets, self.hosts, self.others):
            for each in family():
                yield each._replace(name=f"{family.__name__}: {each.name}")
        yield from self.protocols()

    def post(
        self, *lines: str, body: bytes, start: str = "POST /predict HTTP/1.1", host: str = "Host: localhost"
    ) -> bytes:
        head = "\r\n".join([start, *([host] if host else []), *lines, "", ""])
        return head.encode("latin-1") + body

    def lengths(self) -> Iterator[Case]:
        """Content-Length in every wrong way; who reads it as nothing finds the hidden request."""
        n, hidden = len(self.hidden), self.hidden
        wrong = f"+{n}|-{n}|-0|0x{n:x}|{n}.0|{n}e0|{n} {n}|{n},{n}|{n}, {n}|{n};|{n}_0|'{n}'|\"{n}\"|{n}\0|\xb2|{2**64 + n}|{2**128}|"
        wrong += f"{n}\x0b|\x0c{n}|x|{n}x|0 {n}|nan|٣".encode().decode("latin-1")
        for each in wrong.split("|"):
            yield Case(repr(each), self.post(f"Content-Length: {each}", body=hidden), REFUSED)
        for a, b in ((n, n), (0, n), (n, 0), ("", n), (n, "")):
            twice = self.post(f"Content-Length: {a}", f"Content-Length: {b}", body=hidden)
            yield Case(f"{a} and {b}", twice, REFUSED)
        for each in (f"  {n}", f"{n}  ", f"\t{n}\t", "0" * 30 + str(n)):
            yield Case(repr(each), self.post(f"Content-Length: {each}", body=hidden), EITHER)
        for name in ("Content-Length ", "Content-Length\t", " Content-Length", "Content Length", "Content-Length\0"):
            yield Case(repr(name), self.post(f"{name}: {n}", body=hidden), REFUSED)
        body = self.body
        yield Case("underscore", self.post("Content_Length: 0", f"Content-Length: {len(body)}", body=body), TAKEN)
        for method in ("GET", "HEAD", "OPTIONS", "DELETE", "PUT", "TRACE"):
            for path in ("/health/live", "/schema", "/predict", "/nothing"):
                start = f"{method} {path} HTTP/1.1"
                yield Case(start, self.post(f"Content-Length: {n}", body=hidden, start=start), EITHER)

    def transfers(self) -> Iterator[Case]:
        """Transfer-Encoding in every wrong way, alone and beside a length."""
        ended, n = b"0\r\n\r\n" + self.hidden, len(self.hidden) + 5
        good = b"%x\r\n%b\r\n0\r\n\r\n" % (len(self.body), self.body)
        yield Case("chunked", self.post("Transfer-Encoding: chunked", body=good), TAKEN)
        yield Case("case", self.post("transfer-ENCODING: CHUNKED", body=good), TAKEN)
        for lines in (
            (f"Content-Length: {n}", "Transfer-Encoding: chunked"),
            ("Transfer-Encoding: chunked", f"Content-Length: {n}"),
            ("Transfer-Encoding: chunked", "Content-Length: 0"),
            ("Transfer-Encoding: identity", f"Content-Length: {n}"),
            ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
            ("Transfer-Encoding: gzip", "Transfer-Encoding: chunked, x"),
        ):
            yield Case(" + ".join(lines), self.post(*lines, body=ended), REFUSED)
        wrong = 'xchunked|chunked, identity|chunked, chunked|chunkedx|chunk|chunked;q=1|"chunked"|gzip|\x0bchunked|chunked\0|'
        wrong += (
            "chunked,|,chunked,x|ch unked|identity|deflate, gzip|cow|chunked, gzip|\xffchunked|[chunked]|chunked\x0c"
        )
        for each in wrong.split("|"):
            yield Case(repr(each), self.post(f"Transfer-Encoding: {each}", body=ended), REFUSED)
        for name in (
            "Transfer-Encoding ",
            " Transfer-Encoding",
            "Transfer Encoding",
            "Transfer-Encoding\0",
            "Transfer-Encoding\t",
        ):
            both = self.post(f"Content-Length: {n}", f"{name}: chunked", body=ended)
            yield Case(repr(name), both, REFUSED)
        yield Case("folded", self.post("Transfer-Encoding:\r\n chunked", f"Content-Length: {n}", body=ended), REFUSED)
        plain = f"Content-Length: {len(self.body)}"
        for name in ("Transfer_Encoding", "X-Transfer-Encoding", "Transfer-Encoding-X", "TE"):
            yield Case(name, self.post(f"{name}: chunked", plain, body=self.body), TAKEN)
        yield Case("1.0", self.post("Transfer-Encoding: chunked", body=ended, start="POST /predict HTTP/1.0"), EITHER)

    def chunks(self) -> Iterator[Case]:
        """Chunks of every wrong size; who reads a size as nothing, or past it, finds the hidden request."""
        body, n, hidden = self.body, len(self.body), self.hidden

        def of(data: bytes) -> bytes:
            return self.post("Transfer-Encoding: chunked", body=data)

        taken = {
            "extension": b"%x;a=b;c\r\n%b\r\n0;x=y\r\n\r\n" % (n, body),
            "upper": b"%X\r\n%b\r\n0\r\n\r\n" % (n, body),
            "zeros": b"0000%x\r\n%b\r\n000\r\n\r\n" % (n, body),
            "bytes": b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n",
            "trailers": b"%x\r\n%b\r\n0\r\nHost: evil\r\nX-API-Key: a\r\n\r\n" % (n, body),
            "an end within": b"%x\r\n%b\r\n0\r\n\r\n" % (n + 7, body + b"  \r\n \r\n"),
        }
        for name, data in taken.items():
            yield Case(name, of(data), TAKEN)
        inside = b"\r\n0\r\n\r\n" + hidden
        yield Case("hidden within", of(b"%x\r\n%b\r\n0\r\n\r\n" % (len(inside), inside)), REFUSED)
        wrong = [b"0x%x", b"+%x", b"-%x", b" %x", b"%x ", b"%xg", b"%x_", b"%x,", b"%x\t;", b"%x\n", b"%x\r", b"%x\0"]
        for size in wrong:
            yield Case(repr(size), of(size % n + b"\r\n" + body + b"\r\n0\r\n\r\n" + hidden), EITHER, 1)
        for text in (b"", b"g", b";", b"F" * 16, b"F" * 17, b"1" + b"0" * 16 + b"%x" % n, b"-1", b"80000000", b"\xb2"):
            yield Case(repr(text), of(text + b"\r\n" + body + b"\r\n0\r\n\r\n" + hidden), EITHER, 1)
        long = n + 2
        for trailer in (b"Content-Length: 0", b"Transfer-Encoding: chunked"):
            yield Case(repr(trailer), of(b"%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (n, body, trailer)), EITHER)
        yield Case("too short", of(b"%x\r\n%b\r\n0\r\n\r\n" % (n - 2, body) + hidden), REFUSED)
        yield Case("too long", of(b"%x\r\n%b\r\n0\r\n\r\n" % (long, body) + hidden), REFUSED)
        yield Case("bare ends", of(b"%x\n%b\n0\n\n" % (n, body) + hidden), REFUSED)
        yield Case("bare end of data", of(b"%x\r\n%b\n0\r\n\r\n" % (n, body) + hidden), REFUSED)
        yield Case("no end of data", of(b"%x\r\n%b0\r\n\r\n" % (n, body) + hidden), REFUSED)
        yield Case("bare last", of(b"%x\r\n%b\r\n0\r\n\n" % (n, body) + hidden), REFUSED)
        yield Case("extension of 100 KB", of(b"%x;%b\r\n%b\r\n0\r\n\r\n" % (n, b"a" * 100_000, body)), EITHER)
        yield Case("extension with an end", of(b"%x;a=\n\r\n%b\r\n0\r\n\r\n" % (n, body) + hidden), REFUSED)
        yield Case("quoted extension", of(b'%x;a="\r\n\r\n"\r\n%b\r\n0\r\n\r\n' % (n, body) + hidden), REFUSED)
        yield Case("trailer of 100 KB", of(b"%x\r\n%b\r\n0\r\nA: %b\r\n\r\n" % (n, body, b"a" * 100_000)), EITHER)
        yield Case("trailer without colon", of(b"%x\r\n%b\r\n0\r\nA\r\n\r\n" % (n, body)), EITHER)
        yield Case("65,536 chunks", of(b"1\r\n \r\n" * 65_536 + b"%x\r\n%b\r\n0\r\n\r\n" % (n, body)), TAKEN)

    def lines(self) -> Iterator[Case]:
        """Lines that end, begin or continue as none should."""
        body = self.body
        length = f"Content-Length: {len(body)}"
        good = self.post(length, body=body)
        hidden = f"Content-Length: {len(self.hidden)}"
        yield Case("blank lines before", b"\r\n\r\n" + good, TAKEN)
        for name, line in {
            "bare LF": "X: a\nContent-Length: 0",
            "bare CR": "X: a\rContent-Length: 0",
            "CR CR LF": "X: a\r\r\nContent-Length: 0",
            "fold": "X: a\r\n b",
            "folded tab": "X: a\r\n\tContent-Length: 0",
            "folded first": " X: a",
            "no colon": "X",
            "no name": ": a",
            "NUL in value": "X: a\0b",
            "NUL in name": "X\0: a",
            "space in name": "X Y: a",
            "space before colon": "X : a",
            "brackets": "X[]: a",
            "letters": "X\xe9: a",
            "DEL": "X: a\x7f",
            "control": "X: a\x01b",
            "quotes": 'X"Y: a',
        }.items():
            yield Case(name, self.post(line, hidden, body=self.hidden), REFUSED)
        yield Case("all bare LF", good.replace(b"\r\n", b"\n"), REFUSED)
        yield Case("bare LF at the end", good.replace(b"\r\n\r\n", b"\r\n\n", 1), REFUSED)
        yield Case("bare LF of the first", good.replace(b"\r\n", b"\n", 1), REFUSED)
        for start in (
            *("POST /predict", "POST /predict ", "POST\t/predict\tHTTP/1.1", " POST /predict HTTP/1.1"),
            *("POST /predict HTTP/1.2", "POST /predict HTTP/2.0", "POST /predict HTTP/0.9", "POST /predict HTTP/9.9"),
            *("POST /predict HTTP/11", "POST /predict HTTP/1", "POST /predict http/1.1", "POST /predict HTTP/1.1 x"),
            *(
                "POST /predict HTTP/01.1",
                "POST /predict HTTP/1.10",
                "POST /predict HTTP /1.1",
                "POST /predict HTTPS/1.1",
            ),
            *(
                "post /predict HTTP/1.1",
                "POSTT /predict HTTP/1.1",
                "P\0ST /predict HTTP/1.1",
                "/predict HTTP/1.1",
                "POST",
            ),
            *("POST /pre dict HTTP/1.1", "POST /predict\0 HTTP/1.1", "POST /predict\x0b HTTP/1.1", "POST HTTP/1.1", ""),
        ):
            yield Case(repr(start), self.post(length, body=body, start=start), REFUSED)
        yield Case("1.0", self.post(length, body=body, start="POST /predict HTTP/1.0") + self.hidden, TAKEN)

    def targets(self) -> Iterator[Case]:
        """Targets in other forms than a path."""
        get = "GET {} HTTP/1.1"
        for target in ("http://localhost/health/live", "/health/live?" + "a" * 60_000, "/health/live?a=\xe9"):
            yield Case(target[:40], self.post(body=b"", start=get.format(target)), EITHER)
        for target in (
            *(
                "http://evil/schema",
                "http://localhost@evil/schema",
                "//localhost/schema",
                "//evil/schema",
                "*",
                "schema",
            ),
            *(
                "localhost:80",
                "http://",
                "http:///schema",
                "https://localhost/schema",
                "ftp://localhost/schema",
                "#",
                "?",
                "\\",
            ),
            *(
                "/schema#x",
                "/%00",
                "/\xe9",
                "/%",
                "/%zz",
                "/%2e%2e/schema",
                "/..;/schema",
                "/./schema",
                "/docs/../schema",
            ),
            *(
                "/schema%2f",
                "/schema/",
                "/schema;x",
                "/%73chema",
                "/schema%20",
                "/schema%0d%0aX:%20y",
                "/docs/..%2f..%2fx",
            ),
            *(
                "/docs/%2e%2e/%2e%2e/x",
                "/models/../schema",
                "/models//schema",
                "/models/%2e%2e/schema",
                "/v2/models/../x",
            ),
            *(
                "/models/storm%00/schema",
                "/models/storm/../churn/predict",
                "/%c0%ae%c0%ae/",
                "/" + "a/" * 20_000,
                "/" * 30_000,
            ),
        ):
            yield Case(target[:40], self.post(body=b"", start=get.format(target)), EITHER)
        yield Case("100 KB", self.post(body=b"", start=get.format("/" + "a" * 100_000)), REFUSED)
        yield Case("CONNECT", self.post(body=self.hidden, start="CONNECT localhost:80 HTTP/1.1"), REFUSED)
        yield Case("CONNECT /", self.post(body=self.hidden, start="CONNECT / HTTP/1.1"), REFUSED)
        yield Case("OPTIONS *", self.post(body=b"", start="OPTIONS * HTTP/1.1"), EITHER)

    def hosts(self) -> Iterator[Case]:
        """Hosts that are none, or not ours."""
        length = f"Content-Length: {len(self.body)}"
        for host in ("localhost", "LOCALHOST:80", "127.0.0.1", "[::1]:9", "localhost."):
            yield Case(host, self.post(length, body=self.body, host=f"Host: {host}"), TAKEN)
        wrong = "evil|localhost evil|localhost:80:80|localhost/|localhost#|evil@localhost|localhost@evil|localhost,evil|x\xe9|"
        wrong += "xlocalhost|localhost.evil|localhost%00|local\thost|[::1|::1|127.1|0x7f000001|2130706433|127.0.0.1.evil|0.0.0.0|"
        wrong += "localhost:x|localhost:999999|localhost:-1|..|*|[::ffff:127.0.0.1]x|" + "a" * 5000
        for host in wrong.split("|"):
            yield Case(host[:40], self.post(length, body=self.body, host=f"Host: {host}"), REFUSED)
        yield Case("none", self.post(length, body=self.body, host=""), REFUSED)
        for second in ("localhost", "evil", ""):
            yield Case(f"and {second}", self.post(f"Host: {second}", length, body=self.body), REFUSED)
        yield Case("evil first", self.post("Host: localhost", length, body=self.body, host="Host: evil"), REFUSED)
        yield Case("space", self.post(length, body=self.body, host="Host : localhost"), REFUSED)
        yield Case("underscore", self.post(length, body=self.body, host="Host_: localhost"), REFUSED)

    def others(self) -> Iterator[Case]:
        """Headers by the thousand, expectations, offers of other protocols."""
        body, length = self.body, f"Content-Length: {len(self.body)}"
        for name, lines in {
            "100,000 headers": [f"X-{number}: a" for number in range(100_000)],
            "header of 1 MB": ["X: " + "a" * 1_000_000],
            "name of 1 MB": ["X" * 1_000_000 + ": a"],
        }.items():
            yield Case(name, self.post(*lines, length, body=body), REFUSED)
        for name, lines in {
            "9,000 headers": [f"{number:x}: " for number in range(9_000)],
            "9,000 times the same": ["a:b"] * 9_000,
            "9,000 lengths of none": ["Content_Length: 0"] * 2_000,
        }.items():
            yield Case(name, self.post(*lines, length, body=body), EITHER)
        for line in (
            "Content-Encoding: gzip",
            "Content-Encoding: br",
            "Content-Encoding: identity, gzip",
            "Content-Encoding: x",
        ):
            yield Case(line, self.post(line, length, body=body), REFUSED)
        for line in ("100-continue", "100-CONTINUE", "200-ok", "100-continue, 100-continue", "x", ""):
            yield Case(f"Expect: {line}", self.post(f"Expect: {line}", length, body=body), EITHER)
        for line in (
            "close",
            "keep-alive, close",
            "Content-Length",
            "Transfer-Encoding",
            "Host",
            "x" * 5000,
            "close, close",
        ):
            yield Case(f"Connection: {line[:20]}", self.post(f"Connection: {line}", length, body=body), EITHER)
        hidden = f"Content-Length: {len(self.hidden)}"
        for line in ("h2c", "websocket", "TLS/1.0", "HTTP/2.0, SHTTP/1.3", "x"):
            offer = [
                f"Upgrade: {line}",
                "Connection: Upgrade, HTTP2-Settings",
                "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
            ]
            yield Case(f"Upgrade: {line}", self.post(*offer, length, body=body), TAKEN)
            yield Case(f"Upgrade: {line}, hidden", self.post(*offer, hidden, body=self.hidden), EITHER)
            chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(self.hidden), self.hidden)
            yield Case(
                f"Upgrade: {line}, chunked", self.post(*offer, "Transfer-Encoding: chunked", body=chunked), EITHER
            )

    def protocols(self) -> Iterator[Case]:
        """What is no HTTP/1 at all."""
        hello = bytes.fromhex("16030100a5010000a10303") + bytes(range(160))
        second = bytes.fromhex("0d0a0d0a000d0a515549540a2111000c7f0000017f00000104d20050")
        for name, data in {
            "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
            "TLS": hello,
            "PROXY v1": b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + self.hidden,
            "PROXY v2": second + self.hidden,
            "HTTP/0.9": b"GET /health/live\r\n\r\n",
            "SSH": b"SSH-2.0-x\r\n",
            "SMTP": b"EHLO x\r\nMAIL FROM:<a@b>\r\n",
            "Redis": b"*1\r\n$4\r\nPING\r\n",
            "memcached": b"stats\r\n",
            "RTSP": b"DESCRIBE /predict RTSP/1.0\r\nCSeq: 1\r\n\r\n",
            "ICE": b"SOURCE /predict ICE/1.0\r\n\r\n",
            "an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "DNS": bytes.fromhex("001c00000100000100000000000004746573740000010001"),
            "FastCGI": b"\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00",
            "zeros": bytes(1000),
            "ones": b"\xff" * 1000,
            "JSON": self.body,
            "XML": b"<?xml version='1.0'?><a/>\r\n\r\n",
        }.items():
            yield Case(f"protocol: {name}", data, REFUSED)
        for name, data in {
            "nothing": b"",
            "lines": b"\r\n" * 1000,
            "100,000 lines": b"\r\n" * 100_000,
            "a start": SLOW,
        }.items():
            yield Case(f"protocol: {name}", data, EITHER)
