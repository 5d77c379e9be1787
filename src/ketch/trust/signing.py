"""Signatures: a DSSE envelope around an in-toto statement, as OpenSSF model_signing 1.x writes and reads it."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ketch.errors import BadSignature, InputError
from ketch.trust import MOST_SIGNATURE, Key, digest

PAYLOAD: Final = "application/vnd.in-toto+json"
DSA: Final = ec.ECDSA(hashes.SHA256())
AGAIN: Final = "Fetch bundle and signature again from whoever signed it; if you made the bundle, sign it: ketch sign"

Hex = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
T = TypeVar("T")


class _Strict(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """What surrounds the signed bytes holds nothing else than what is checked."""


class _PublicKey(_Strict):
    hint: Hex


class _Material(_Strict):
    public_key: _PublicKey
    tlog_entries: Annotated[list[Any], msgspec.Meta(max_length=0)] = []


class _Signature(_Strict):
    sig: str
    keyid: Literal[""] = ""


class _Envelope(_Strict):
    payload: str
    payload_type: Literal["application/vnd.in-toto+json"]
    signatures: Annotated[list[_Signature], msgspec.Meta(min_length=1, max_length=1)]


class _Bundle(_Strict):
    media_type: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"]
    verification_material: _Material
    dsse_envelope: _Envelope


class _Digest(msgspec.Struct):
    sha256: Hex


class _Subject(msgspec.Struct):
    name: str
    digest: _Digest


class _Resource(msgspec.Struct):
    name: Literal["."]  # the one file that the statement is about
    algorithm: Literal["sha256"]
    digest: Hex


class _Serialization(msgspec.Struct):
    method: Literal["files"]
    hash_type: Literal["sha256"]
    allow_symlinks: bool = False


class _Predicate(msgspec.Struct):
    serialization: _Serialization
    resources: Annotated[list[_Resource], msgspec.Meta(min_length=1, max_length=1)]


class _Statement(msgspec.Struct):
    type: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    subject: Annotated[list[_Subject], msgspec.Meta(min_length=1, max_length=1)]
    predicate_type: Literal["https://model_signing/signature/v1.0"] = msgspec.field(name="predicateType")
    predicate: _Predicate


def pae(payload: bytes) -> bytes:
    """Give the bytes that are signed for a payload: DSSE v1.0.0, pre-authentication encoding."""
    return f"DSSEv1 {len(PAYLOAD)} {PAYLOAD} {len(payload)} ".encode() + payload


def sign(sha256: str, name: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Make the signature file for the file that has this SHA-256 and name."""
    payload = msgspec.json.encode(
        _Statement(
            type="https://in-toto.io/Statement/v1",
            subject=[_Subject(name, _Digest(_root(sha256)))],
            predicate_type="https://model_signing/signature/v1.0",
            predicate=_Predicate(_Serialization("files", "sha256"), [_Resource(".", "sha256", sha256)]),
        )
    )
    mark = _Signature(base64.b64encode(key.sign(pae(payload), DSA)).decode())
    return msgspec.json.encode(
        _Bundle(
            media_type="application/vnd.dev.sigstore.bundle.v0.3+json",
            verification_material=_Material(_PublicKey(fingerprint(pem_of(key.public_key())))),
            dsse_envelope=_Envelope(base64.b64encode(payload).decode(), "application/vnd.in-toto+json", [mark]),
        )
    )


def verify(sha256: str, signature: bytes, known: Mapping[str, Key], name: str) -> Key:
    """Give the known key that signed the file with this SHA-256; `name` is what messages call the file.

    Raises:
        BadSignature: the signature is damaged, of another file, or not by a known and unrevoked key.
    """
    envelope = _read(signature, _Bundle, name)
    key = _known(envelope.verification_material.public_key.hint, known, name)
    payload = _decoded(envelope.dsse_envelope.payload, name)
    mark = _decoded(envelope.dsse_envelope.signatures[0].sig, name)
    try:
        public_key(key.pem.encode(), key.name).verify(mark, pae(payload), DSA)
    except InvalidSignature:
        raise BadSignature(f"The signature of {name} was changed: it is not by {key.name}", hint=AGAIN) from None
    statement = _read(payload, _Statement, name)
    signed = statement.predicate.resources[0].digest
    if signed != sha256 or statement.subject[0].digest.sha256 != _root(signed):
        raise BadSignature(
            f"{name} is not the file that {key.name} signed: it was changed, or the signature is another file's",
            hint=AGAIN,
        )
    return key


def signer_of(signature: bytes, name: str) -> str:
    """Give the fingerprint of the key that a signature says it is by; nothing is verified.

    Raises:
        BadSignature: the signature is damaged.
    """
    return _read(signature, _Bundle, name).verification_material.public_key.hint


def fingerprint(pem: str) -> str:
    """Give a public key's fingerprint: the SHA-256 of its PEM, as `sha256sum` and model_signing give it."""
    return digest(pem.encode())


def pem_of(key: ec.EllipticCurvePublicKey) -> str:
    """Write a public key as PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode()


def public_key(pem: bytes, name: str) -> ec.EllipticCurvePublicKey:
    """Read a P-256 public key.

    Raises:
        InputError: it is none.
    """
    hint = "Give a public key on the curve P-256, as PEM; make a pair with: ketch keys new"
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InputError(f"{name} holds no public key", hint=hint) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InputError(f"The key in {name} is not on the curve P-256", hint=hint)
    return key


def _root(sha256: str) -> str:
    """Give the digest of a statement's subject: that of the digests of its files, here one."""
    return digest(bytes.fromhex(sha256))


def _known(wanted: str, known: Mapping[str, Key], name: str) -> Key:
    if wanted not in known:
        raise BadSignature(
            f"{name} is signed with a key that is not trusted here: {wanted}",
            hint="If its maker tells you the same number, trust the maker's public key: ketch keys trust KEY.pub.pem",
        )
    key = known[wanted]
    if key.revoked:
        raise BadSignature(
            f"{name} is signed with the key {key.name}, which was revoked here on {key.revoked[:10]}",
            hint="Ask whoever made it to sign it with a new key.",
        )
    return key


def _decoded(text: str, name: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if base64.b64encode(data).decode() != text:  # some letters may say the same bytes; only one way is taken
        raise _damaged(name, "its base64 is not as it was written")
    return data


def _read(data: bytes, kind: type[T], name: str) -> T:
    if len(data) > MOST_SIGNATURE:
        raise _damaged(name, f"it has more than {MOST_SIGNATURE >> 20} MiB")
    try:
        return msgspec.convert(json.loads(data.decode("utf-8"), object_pairs_hook=_once), kind)
    except (ValueError, RecursionError) as error:  # msgspec and json raise kinds of ValueError
        raise _damaged(name, str(error)) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def _damaged(name: str, why: str) -> BadSignature:
    return BadSignature(f"The signature of {name} is not one that can be checked: {why}", hint=AGAIN)
