"""An identity provider of OpenID Connect on loopback: it signs everybody in as the same person, with real tokens."""

import http.server
import json
import time
from contextlib import AbstractContextManager
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.pages.browser import answering

CLIENT: Final = "ketch"


class _Provider(http.server.BaseHTTPRequestHandler):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    nonces: dict[str, str] = {}  # noqa: RUF012 (of the one provider of a test)

    @property
    def issuer(self) -> str:
        return f"http://{self.headers['host']}"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/.well-known/openid-configuration":
            ends = {f"{name}_endpoint": f"{self.issuer}/{name}" for name in ("authorization", "token", "userinfo")}
            self._json({"issuer": self.issuer, "jwks_uri": f"{self.issuer}/jwks", **ends})
        elif parts.path == "/jwks":
            public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
            self._json({"keys": [{**public, "kid": "1", "alg": "RS256", "use": "sig"}]})
        elif parts.path == "/authorization":
            code = f"code-{len(self.nonces)}"
            self.nonces[code] = asked.get("nonce", "")
            self.send_response(302)
            self.send_header(
                "Location", f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"
            )
            self.end_headers()
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        code = parse_qs(body)["code"][0]
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "sub": "ana",
            "email": "ana@example.com",
            "iat": now,
            "exp": now + 600,
        }
        if nonce := self.nonces.get(code):
            claims["nonce"] = nonce
        token = jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": "1"})
        self._json({"access_token": "none", "token_type": "Bearer", "expires_in": 600, "id_token": token})

    def _json(self, told: Any) -> None:
        data = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def providing() -> AbstractContextManager[str]:
    """Run the provider and give its address."""
    return answering(_Provider)
