"""Tokens of an issuer: a real https server publishes the keys, and hostile tokens are all refused alike."""

import base64
import contextlib
import datetime
import http.server
import json
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ketch.errors import Forbidden, KetchError, NotReady, SettingError, Unauthorized
from ketch.serve import bearer as room
from ketch.serve.bearer import LONGEST, Bearer
from ketch.serve.guard import Guard
from ketch.trust.calling import USUAL

ISSUER, AUDIENCE = "https://issuer.example/", "churn"
PLAIN = "a-plain-key-of-the-environment"
Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@cache
def private(name: str) -> Private:
    kind, _, _ = name.partition("-")
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    if kind == "small":
        return rsa.generate_private_key(65537, 1024)
    if kind == "ed":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP384R1() if kind == "p384" else ec.SECP256R1())


def public_pem(name: str) -> bytes:
    return (
        private(name)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def jwk(name: str, **more: str) -> dict[str, str]:
    algorithms: Mapping[str, Any] = jwt.algorithms.get_default_algorithms()
    kind = {"rsa": "RS256", "small": "RS256", "ed": "EdDSA", "p384": "ES384"}.get(name.partition("-")[0], "ES256")
    made: dict[str, str] = algorithms[kind].to_jwk(private(name).public_key(), as_dict=True)
    return {name: value for name, value in made.items() if name != "key_ops"} | {"kid": name} | more


def token(
    key: str = "rsa-1",
    algorithm: str = "RS256",
    headers: Mapping[str, Any] | None = None,
    without: str = "",
    **claims: Any,
) -> str:
    now = int(time.time())
    payload = {"iss": ISSUER, "aud": AUDIENCE, "exp": now + 300, "sub": "shop", "scope": "predict read", **claims}
    payload.pop(without, None)
    return jwt.encode(payload, private(key), algorithm, {"kid": key, **(headers or {})})


def raw(header: Any, payload: Any, signature: bytes = b"") -> str:
    parts = (json.dumps(header).encode(), json.dumps(payload).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in parts)


def signed(payload: Any, headers: Mapping[str, Any] | None = None, key: str = "rsa-1") -> str:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    made: str = jwt.api_jws.encode(body, private(key), "RS256", {"kid": key, **(headers or {})})
    return made


# an issuer on this machine


@dataclass
class Issuer:
    """What the https server at `port` answers, and how often it was asked."""

    port: int = 0
    paths: dict[str, Callable[[http.server.BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    context: ssl.SSLContext = field(default_factory=lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def url(self, path: str = "/jwks") -> str:
        return f"https://localhost:{self.port}{path}"

    def publish(self, *keys: Any, path: str = "/jwks") -> None:
        body = json.dumps({"keys": keys}).encode()
        self.paths[path] = lambda handler: send(handler, body)

    def bearer(self, path: str = "/jwks", **more: Any) -> Bearer:
        made = Bearer(ISSUER, AUDIENCE, self.url(path), context=self.context, **more)
        made.wait(10)
        return made


def send(handler: http.server.BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def nothing(handler: http.server.BaseHTTPRequestHandler) -> None:
    send(handler, b"", 404)


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make an authority, and a certificate of it for this machine; give the files of both."""

    def made(name: str, key: Private, by: str, sign: ec.EllipticCurvePrivateKey, authority: bool) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        named = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (name, by)]
        marks = (
            (x509.BasicConstraints(ca=authority, path_length=None), True),
            (x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]), False),
            (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(sign.public_key()), False),
        )
        building = x509.CertificateBuilder().subject_name(named[0]).issuer_name(named[1])
        building = building.public_key(key.public_key()).serial_number(x509.random_serial_number())
        building = building.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
        for mark, critical in marks:
            building = building.add_extension(mark, critical)
        return building.sign(sign, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    root, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority, chain = folder / "authority.pem", folder / "server.pem"
    authority.write_bytes(made("authority", root, "authority", root, authority=True))
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain.write_bytes(made("localhost", leaf, "authority", root, authority=False) + leaf.private_bytes(*plain))
    return authority, chain


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    authority, chain = certificate(tmp_path_factory.mktemp("issuer"))
    issuer = Issuer(context=ssl.create_default_context(cafile=str(authority)))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            issuer.paths.get(self.path, nothing)(self)

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    issuer.port = server.server_port
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield issuer
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def issuer(running: Issuer, monkeypatch: pytest.MonkeyPatch) -> Issuer:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running.paths.clear()
    running.asked.clear()
    running.publish(jwk("rsa-1"), jwk("ec-1"))
    return running


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# good ones


@pytest.mark.parametrize(
    ("key", "algorithm", "allowed"),
    [("rsa-1", "RS256", ("RS256",)), ("ec-1", "ES256", ("RS256", "ES256")), ("rsa-1", "PS384", ("PS384",)),
     ("p384-1", "ES384", ("ES384",)), ("ed-1", "EdDSA", ("EdDSA",))],
)  # fmt: skip
def test_a_token_of_the_issuer_is_good(issuer: Issuer, key: str, algorithm: str, allowed: tuple[str, ...]) -> None:
    issuer.publish(jwk("rsa-1"), jwk("ec-1"), jwk("p384-1"), jwk("ed-1"))
    made = token(key, algorithm)
    found = issuer.bearer(algorithms=allowed).verdict(made)
    assert found.caller.scopes == {"predict", "read"}
    assert len(found.caller.name) == 16
    assert "shop" not in found.caller.name
    assert 290 < found.until - time.time() <= 300


@pytest.mark.parametrize(
    ("claims", "setting", "scopes"),
    [({"scope": "predict metrics"}, "scope", {"predict", "metrics"}),
     ({"scp": ["predict", "ketch:explain", "admin", 7, None]}, "scp", {"predict", "explain"}),
     ({"scope": "billing:read predictions ketch:all"}, "scope", set()), ({"scope": 7}, "scope", set()),
     ({"scope": None}, "scope", set()), ({"scope": {"predict": 1}}, "scope", set()), ({}, "scp", set()),
     ({"scope": ""}, "-", USUAL)],
)  # fmt: skip
def test_what_a_token_opens(issuer: Issuer, claims: dict[str, Any], setting: str, scopes: set[str]) -> None:
    assert issuer.bearer(scopes_claim=setting).verdict(token(**claims)).caller.scopes == scopes


def test_several_audiences_and_a_set_of_one_key_without_name(issuer: Issuer) -> None:
    issuer.publish({name: value for name, value in jwk("rsa-1").items() if name != "kid"})
    bearer = issuer.bearer()
    bearer.verdict(token(aud=["other", AUDIENCE], headers={"kid": ""}))
    assert bearer.verdict(token(sub="a", headers={"kid": ""})) != bearer.verdict(token(sub="b", headers={"kid": ""}))


def test_the_guard_takes_keys_and_tokens(issuer: Issuer) -> None:
    guard = Guard((PLAIN,), bearer=issuer.bearer())
    good = token()

    def check(value: str, scope: str = "predict", name: str = "authorization") -> str:
        return guard.check({"host": "churn.example", name: value}, scope=scope).name

    assert len(check(f"Bearer {good}")) == 16
    assert len(check(f"Bearer {PLAIN}")) == 8
    for value, name in ((f"Bearer {good}x", "authorization"), (good, "x-api-key"), (f"Token {good}", "authorization")):
        with pytest.raises(Unauthorized):
            check(value, name=name)
    with pytest.raises(Forbidden, match="explain"):
        check(f"Bearer {good}", "explain")
    assert check("Bearer x.y.z", "") == ""


# hostile ones


def hostile() -> dict[str, Callable[[], str]]:
    now = int(time.time())
    whole = {"iss": ISSUER, "aud": AUDIENCE, "exp": now + 300, "sub": "shop", "scope": "predict"}

    def by_secret(secret: bytes, kid: str = "rsa-1") -> str:
        bare = raw({"alg": "HS256", "kid": kid}, whole).rpartition(".")[0]
        mac = hmac.HMAC(secret, hashes.SHA256())
        mac.update(bare.encode())
        return f"{bare}.{base64.urlsafe_b64encode(mac.finalize()).rstrip(b'=').decode()}"

    def changed() -> str:
        head, _, sign = token().split(".")
        return f"{head}.{raw({}, {**whole, 'scope': 'metrics'}).split('.')[1]}.{sign}"

    own = jwk("rsa-evil")
    return {
        "none": lambda: raw({"alg": "none"}, whole),
        "none with kid": lambda: raw({"alg": "none", "kid": "rsa-1"}, whole),
        "None": lambda: raw({"alg": "nOnE", "kid": "rsa-1"}, whole, b"x"),
        "no alg": lambda: raw({"kid": "rsa-1"}, whole, b"x"),
        "alg is a list": lambda: raw({"alg": ["RS256"], "kid": "rsa-1"}, whole, b"x"),
        "public key as secret": lambda: by_secret(public_pem("rsa-1")),
        "public key as secret, stripped": lambda: by_secret(public_pem("rsa-1").strip()),
        "empty secret": lambda: by_secret(b"\0"),
        "published secret": lambda: by_secret(b"published-secret-of-the-issuer-0", "oct-1"),
        "allowed key, other algorithm": lambda: token(algorithm="RS512"),
        "algorithm of another kind of key": lambda: token("ec-1", "ES256", {"kid": "rsa-1"}),
        "curve that does not fit": lambda: raw({"alg": "ES256", "kid": "p384-1"}, whole, b"x" * 64),
        "key that declares another algorithm": lambda: token("rsa-ps", "RS256"),
        "key for encryption": lambda: token("rsa-enc"),
        "small key": lambda: signed(whole, key="small-1"),
        "strange key": lambda: token("rsa-evil", headers={"kid": "rsa-1"}),
        "own key inside": lambda: token("rsa-evil", headers={"kid": "rsa-1", "jwk": own}),
        "own key elsewhere": lambda: token("rsa-evil", headers={"jku": "https://evil.example/jwks", "x5u": "x"}),
        "own certificate": lambda: token("rsa-evil", headers={"kid": "rsa-1", "x5c": ["MIIB"]}),
        "kid is a path": lambda: token("rsa-evil", headers={"kid": "../../../../dev/null"}),
        "kid is a query": lambda: token("rsa-evil", headers={"kid": "' OR 1=1 --"}),
        "kid is a number": lambda: raw({"alg": "RS256", "kid": 1}, whole, b"x"),
        "kid is null": lambda: raw({"alg": "RS256", "kid": None}, whole, b"x"),
        "no kid": lambda: token("rsa-1", headers={"kid": ""}),
        "critical": lambda: token(headers={"crit": ["exp"], "exp": 1}),
        "detached": lambda: raw({"alg": "RS256", "kid": "rsa-1", "b64": False, "crit": ["b64"]}, whole, b"x"),
        "changed": changed,
        "signature left out": lambda: token().rpartition(".")[0] + ".",
        "signature is zero": lambda: raw({"alg": "ES256", "kid": "ec-1"}, whole, bytes(64)),
        "expired": lambda: token(exp=now - 60),
        "no exp": lambda: token(without="exp"),
        "exp is text": lambda: token(exp="never"),
        "exp is a list": lambda: token(exp=[now + 60]),
        "exp is endless": lambda: token(exp=float("inf")),
        "exp is no number": lambda: token(exp=float("nan")),
        "not yet": lambda: token(nbf=now + 300),
        "issued later": lambda: token(iat=now + 300),
        "no aud": lambda: token(without="aud"),
        "other aud": lambda: token(aud="other"),
        "aud that begins so": lambda: token(aud=AUDIENCE + "-test"),
        "aud is an object": lambda: token(aud={AUDIENCE: 1}),
        "no iss": lambda: token(without="iss"),
        "other iss": lambda: token(iss="https://issuer.example.evil/"),
        "iss is a list": lambda: signed({**whole, "iss": [ISSUER]}),
        "sub is an object": lambda: signed({**whole, "sub": {}}),
        "payload is a list": lambda: signed([1]),
        "payload is no json": lambda: signed(b"\xff{"),
        "huge": lambda: token(more="x" * LONGEST),
        "huge header": lambda: token(headers={"more": "x" * LONGEST}),
        "deep header": lambda: raw({}, {}).replace("e30", base64.b64encode(b"[" * 9000).decode(), 1),
        "dots": lambda: "..",
        "many dots": lambda: "." * 5000,
        "words": lambda: "not a token",
        "not latin": lambda: "żółć.żółć.żółć",
        "zero": lambda: "\0.\0.\0",
        "five parts": lambda: token() + ".x.y",
        "spaces": lambda: token().replace(".", " . "),
    }


@pytest.fixture(scope="module")
def strict(running: Issuer) -> Guard:
    """A guard whose issuer also publishes what must not count."""
    oct_key = {"kty": "oct", "kid": "oct-1", "alg": "HS256", "k": "cHVibGlzaGVkLXNlY3JldC1vZi10aGUtaXNzdWVyLTA"}
    others = (jwk("p384-1"), jwk("rsa-ps", alg="PS256"), jwk("rsa-enc", use="enc"), jwk("small-1"), oct_key)
    running.publish(jwk("rsa-1"), jwk("ec-1"), *others, {"kty": "new"}, "noise", path="/strict")
    return Guard(bearer=running.bearer("/strict"))


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
@pytest.mark.parametrize("name", hostile())
def test_a_hostile_token_is_refused(strict: Guard, name: str) -> None:
    assert strict.check({"authorization": f"Bearer {token()}"}, scope="predict").name
    made = hostile()[name]()
    with pytest.raises(Unauthorized) as refused:
        strict.check({"authorization": f"Bearer {made}"}, scope="predict")
    assert refused.value.hint
    assert made not in refused.value.hint + refused.value.message


GOOD_LETTERS = "ABCabc019-_.="
NESTED: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.text(max_size=9) | st.floats(),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(max_size=5), each, max_size=4),
    max_leaves=8,
)


@given(st.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_change_to_a_token_goes_through(strict: Guard, data: st.DataObject) -> None:
    good = cached_token()
    at = data.draw(st.integers(0, len(good) - 1))
    before, after = good[:at], good[at:]
    made = data.draw(
        st.sampled_from([before + after[1:], before, after, good + after, before + "." + after])
        | st.sampled_from(GOOD_LETTERS).map(lambda letter: before + letter + after[1:])
        | st.text(max_size=60)
        | NESTED.map(lambda noise: raw(noise, noise, b"x"))
    )
    if made.strip() != good:
        with pytest.raises(Unauthorized):
            strict.check({"authorization": f"Bearer {made}"}, scope="predict")


@cache
def cached_token() -> str:
    return token("ec-1", "ES256")


# what is remembered, and for how long


def test_a_token_ends_though_it_was_good_before(issuer: Issuer) -> None:
    now = time.time()
    guard = Guard(bearer=issuer.bearer(), clock=lambda: now)
    made = token(exp=int(now) - 5)  # within what clocks may differ, and so not remembered
    headers = {"authorization": f"Bearer {made}"}
    assert guard.check(headers, scope="predict").name
    made = token(exp=int(now) + 60)
    headers = {"authorization": f"Bearer {made}"}
    assert guard.check(headers, scope="predict").name
    asked = ("", None, f"Bearer {made}", "predict")
    assert next(each.until for key, each in guard._seen.items() if key[2:] == asked[2:]) == int(now) + 60


def test_a_key_that_the_issuer_takes_back_opens_nothing_any_more(issuer: Issuer) -> None:
    clock = Clock()
    bearer = issuer.bearer(clock=clock)
    guard, headers = Guard(bearer=bearer, clock=clock), {"authorization": f"Bearer {token()}"}
    assert guard.check(headers, scope="predict").name
    issuer.publish(jwk("ec-1"))
    clock.now += 700
    with contextlib.suppress(Unauthorized):  # the keys that it has fetched may be there before it looks
        guard.check(headers, scope="predict")
    assert bearer.wait(10)
    clock.now += 2
    with pytest.raises(Unauthorized, match="not known"):
        guard.check(headers, scope="predict")


def test_a_new_key_is_fetched_when_it_is_named_and_never_oftener_than_allowed(issuer: Issuer) -> None:
    clock = Clock()
    bearer = issuer.bearer(clock=clock)
    issuer.publish(jwk("rsa-1"), jwk("rsa-2"))
    for _ in range(50):
        with pytest.raises(Unauthorized):
            bearer.verdict(token("rsa-2"))
    assert len(issuer.asked) == 1
    clock.now += 31
    with pytest.raises(Unauthorized):
        bearer.verdict(token("rsa-2"))
    assert bearer.wait(10)
    assert bearer.verdict(token("rsa-2")).caller.name
    for number in range(50):
        with pytest.raises(Unauthorized):
            bearer.verdict(token("rsa-2", headers={"kid": f"made up {number}"}))
    assert len(issuer.asked) == 2


def test_while_the_issuer_is_down_the_keys_of_before_are_good(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    bearer = issuer.bearer(clock=clock)
    for answer in (b"", b"{}", b'{"keys": []}', b'{"keys": 7}', b"[1", b'{"keys": [{"kty": "RSA", "n": "%", "e": 1}]}'):
        issuer.paths["/jwks"] = lambda handler, answer=answer: send(handler, answer)  # type: ignore[misc]
        clock.now += 700
        assert bearer.generation() == 1
        assert bearer.wait(10)
        assert bearer.verdict(token(sub=str(answer))).caller.name
    issuer.paths.clear()
    clock.now += 700
    assert bearer.generation() == 1
    assert bearer.wait(10)
    assert bearer.verdict(token(sub="late")).caller.name
    assert len(caplog.records) == 7
    assert len(issuer.asked) == 8


def test_no_request_waits_for_the_issuer(issuer: Issuer) -> None:
    clock, free = Clock(), threading.Event()
    bearer = issuer.bearer(clock=clock)
    issuer.paths["/jwks"] = lambda handler: send(handler, b"{}") if free.wait(10) else None
    clock.now += 700
    began = time.monotonic()
    assert bearer.generation() == 1
    assert bearer.verdict(token()).caller.name
    with pytest.raises(Unauthorized):
        bearer.verdict(token("rsa-2"))
    new = Bearer(ISSUER, AUDIENCE, issuer.url(), context=issuer.context)
    with pytest.raises(NotReady):
        new.verdict(token())
    assert time.monotonic() - began < 2
    free.set()
    bearer.wait(10)
    new.wait(10)


# where the keys come from


def redirect(where: str) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    return lambda handler: send(handler, b"", 302, Location=where)


def test_redirects_stay_on_https(issuer: Issuer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)  # nobody answers there
    file = tmp_path / "jwks"
    file.write_text(json.dumps({"keys": [jwk("rsa-1")]}))
    with plain:
        for where in (f"http://localhost:{plain.server_port}/jwks", file.as_uri(), "ftp://localhost/jwks", "data:,x"):
            issuer.paths["/moved"] = redirect(where)
            with pytest.raises(NotReady):
                issuer.bearer("/moved").verdict(token())
    assert len(caplog.records) == 4
    issuer.paths["/moved"] = redirect(issuer.url("/jwks"))
    assert issuer.bearer("/moved").verdict(token()).caller.name
    issuer.paths["/round"] = redirect("/round")
    with pytest.raises(NotReady):
        issuer.bearer("/round").verdict(token())


def test_an_issuer_that_cannot_prove_itself_is_not_asked(issuer: Issuer) -> None:
    bearer = Bearer(ISSUER, AUDIENCE, issuer.url(), context=ssl.create_default_context())
    assert not bearer.wait(10)
    assert issuer.asked == []


def test_an_endless_or_slow_answer_is_given_up(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b" " * 65536)

    def slow(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b" ")
            time.sleep(0.05)

    monkeypatch.setattr(room, "PATIENCE", 0.5)
    issuer.paths |= {"/endless": endless, "/slow": slow}
    for path in ("/endless", "/slow"):
        began = time.monotonic()
        assert not issuer.bearer(path).wait(10)
        assert time.monotonic() - began < 4


def test_keys_come_from_a_file_too_and_it_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, clock = tmp_path / "jwks.json", Clock()
    with caplog.at_level(logging.WARNING):
        bearer = Bearer(ISSUER, AUDIENCE, str(file), clock=clock)
        assert not bearer.wait(10)
    file.write_text(json.dumps({"keys": [jwk("rsa-1")]}))
    clock.now += 31
    with contextlib.suppress(NotReady):  # unless the file was read in no time
        bearer.verdict(token())
    assert bearer.wait(10)
    assert bearer.verdict(token()).caller.name


@pytest.mark.parametrize(
    ("change", "about"),
    [({"jwks": "http://issuer.example/jwks"}, "https"), ({"jwks": "ftp://x/y"}, "https"), ({"jwks": ""}, "jwt_jwks"),
     ({"jwks": "file:///etc/passwd"}, "https"), ({"issuer": ""}, "jwt_issuer"), ({"audience": ""}, "jwt_audience"),
     ({"algorithms": ("RS256", "HS256")}, "HS256"), ({"algorithms": ("none",)}, "none"), ({"algorithms": ()}, "none"),
     ({"algorithms": ("rs256",)}, "rs256")],
)  # fmt: skip
def test_settings_that_would_let_strangers_in_are_refused(change: dict[str, Any], about: str) -> None:
    given_settings = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": "https://issuer.example/jwks", **change}
    with pytest.raises(SettingError, match=about) as refused:
        Bearer(**given_settings)
    assert refused.value.hint
    assert isinstance(refused.value, KetchError)
