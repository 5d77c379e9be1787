"""Signatures: who is believed, what is refused, and that OpenSSF model_signing understands the same files."""

import base64
import json
import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from scipy.special import softmax
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import ketch
from ketch import bundle, settings, trust
from ketch.errors import BadSignature, InputError, KetchError, SettingError, TrustError, UsageError
from ketch.pack import Options, compose
from ketch.predict import load
from ketch.store import Store
from ketch.trust import Key, keyring, signing
from tests import models
from tests.running import Done
from tests.running import ketch as run

WHEN = "2026-11-21T08:00:00+00:00"
PEM = serialization.Encoding.PEM


def signed(data: bytes, home: Path, name: str = "signing") -> bytes:
    return signing.sign(bundle.identity(data), "churn.ketch", keyring.private_key(home, name, ask=str))


def check(data: bytes, signature: bytes, home: Path) -> str:
    return trust.check_signature(data, signature, known=trust.keys(home), name="churn.ketch")


def refusal(data: bytes, signature: bytes, home: Path) -> str:
    with pytest.raises(BadSignature) as caught:
        check(data, signature, home)
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    home = tmp_path_factory.mktemp("packing")
    return compose(models.vectorized(), None, Options(target="churn"), home=home).data


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    keyring.new(folder, "signing", passphrase="", when=WHEN)
    return folder


@pytest.fixture
def path(packed: bytes, tmp_path: Path) -> Path:
    place = tmp_path / "churn.ketch"
    place.write_bytes(packed)
    return place


def beside(path: Path) -> Path:
    return path.with_name(path.name + ".sig")


# keys


def test_a_new_pair_is_private_trusted_and_has_the_fingerprint_of_its_file(home: Path) -> None:
    (key,) = trust.keys(home).values()
    assert (key.name, key.since, key.revoked) == ("signing", WHEN, "")
    public = home / "keys" / "signing.pub.pem"
    assert key.fingerprint == bundle.identity(public.read_bytes())
    if os.name == "posix":
        assert stat.S_IMODE((home / "keys" / "signing.pem").stat().st_mode) == 0o600
        assert stat.S_IMODE((home / "keys").stat().st_mode) == 0o700
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert stat.S_IMODE((home / "keyring.json").stat().st_mode) == 0o600
    private = keyring.private_key(home, "signing", ask=str)
    assert isinstance(private.curve, ec.SECP256R1)
    with pytest.raises(UsageError, match="already"):
        keyring.new(home, "signing", passphrase="", when=WHEN)
    for name in ("../up", "", "A", "x/y"):
        with pytest.raises(UsageError, match="cannot name"):
            keyring.new(home, name, passphrase="", when=WHEN)


def test_a_private_key_that_others_can_read_does_not_sign(home: Path) -> None:
    (home / "keys" / "signing.pem").chmod(0o640)
    if os.name == "posix":
        with pytest.raises(UsageError, match="Other users") as caught:
            keyring.private_key(home, "signing", ask=str)
        assert "chmod 600" in caught.value.hint


def test_a_passphrase_locks_the_private_key(home: Path, packed: bytes) -> None:
    keyring.new(home, "locked", passphrase="correct horse", when=WHEN)
    private = keyring.private_key(home, "locked", ask=lambda: "correct horse")
    assert check(packed, signing.sign(bundle.identity(packed), "x", private), home)
    for wrong in ("", "battery"):
        with pytest.raises(UsageError, match="cannot be opened"):
            keyring.private_key(home, "locked", ask=lambda wrong=wrong: wrong)  # type: ignore[misc]
    with pytest.raises(UsageError) as caught:
        keyring.private_key(home, "nobody", ask=str)
    assert "locked, signing" in caught.value.hint


def foreign(kind: str) -> bytes:
    curves = {"P-384": ec.SECP384R1(), "secp256k1": ec.SECP256K1()}
    private: Any = ec.generate_private_key(curves[kind]) if kind in curves else rsa.generate_private_key(65537, 2048)
    pem: bytes = private.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pem


@pytest.mark.parametrize("kind", ["P-384", "secp256k1", "RSA"])
def test_a_key_on_another_curve_is_refused(kind: str, home: Path) -> None:
    with pytest.raises(InputError, match="not on the curve P-256"):
        keyring.trust_key(home, foreign(kind), "theirs", source="theirs.pem", when=WHEN)
    own = ec.generate_private_key(ec.SECP384R1())
    lock = serialization.NoEncryption()
    place = home / "keys" / "wide.pem"
    place.write_bytes(own.private_bytes(PEM, serialization.PrivateFormat.PKCS8, lock))
    place.chmod(0o600)
    with pytest.raises(UsageError, match="not on the curve P-256"):
        keyring.private_key(home, "wide", ask=str)


@pytest.mark.parametrize("noise", [b"", b"hello", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_is_refused(noise: bytes, home: Path) -> None:
    with pytest.raises(InputError, match="holds no public key"):
        keyring.trust_key(home, noise, "theirs", source="theirs.pem", when=WHEN)
    with pytest.raises(InputError, match="holds no public key"):  # the private half is not taken for the public one
        keyring.trust_key(home, (home / "keys" / "signing.pem").read_bytes(), "x", source="signing.pem", when=WHEN)


def test_a_key_is_trusted_once_and_never_again_after_it_was_revoked(home: Path, tmp_path: Path, packed: bytes) -> None:
    theirs = tmp_path / "theirs"
    key = keyring.new(theirs, "carol", passphrase="", when=WHEN)
    pem = key.pem.replace("\n", "\r\n").encode()  # sent by mail
    assert keyring.trust_key(home, pem, "carol", source="carol.pem", when=WHEN) == key
    assert keyring.trust_key(home, pem, "again", source="carol.pem", when=WHEN).name == "carol"
    signature = signed(packed, theirs, "carol")
    assert check(packed, signature, home) == key.fingerprint
    revoked = keyring.revoke(home, key.fingerprint[:8].upper(), when="2026-12-24T00:00:00+00:00")
    assert keyring.revoke(home, "carol", when="2027-01-01") == revoked
    assert "was revoked here on 2026-12-24" in refusal(packed, signature, home)
    with pytest.raises(UsageError, match="was revoked"):
        keyring.trust_key(home, pem, "carol2", source="carol.pem", when=WHEN)
    for which in ("nobody", key.fingerprint[:7], "", "0" * 64):
        with pytest.raises(UsageError, match="No key here"):
            keyring.revoke(home, which, when=WHEN)


def test_a_damaged_keyring_lets_nobody_in(home: Path, packed: bytes) -> None:
    signature = signed(packed, home)
    record = json.loads((home / "keyring.json").read_text())
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    swapped = [{**record[0], "pem": signing.pem_of(other)}]
    for text in ("{", "[]]", '{"a": 1}', '[{"name": 3}]', json.dumps(swapped)):
        (home / "keyring.json").write_text(text)
        with pytest.raises(SettingError, match="keyring"):
            check(packed, signature, home)


# verifying


def test_a_signature_is_checked_against_bytes_key_and_time(home: Path, packed: bytes) -> None:
    signature = signed(packed, home)
    assert check(packed, signature, home) == next(iter(trust.keys(home)))
    assert "is not the file that signing signed" in refusal(packed + b"\0", signature, home)
    assert "is not the file" in refusal(packed, signed(b"another file", home), home)
    assert "not trusted here" in refusal(packed, signature, home / "elsewhere")
    assert trust.check_signature(packed, None, known={}, name="x") == ""
    with pytest.raises(BadSignature, match="has no signature, and one is required"):
        trust.check_signature(packed, None, known={}, name="x", required=True)


def test_another_key_under_the_same_name_or_hint_is_noticed(home: Path, tmp_path: Path, packed: bytes) -> None:
    keyring.new(tmp_path / "evil", "signing", passphrase="", when=WHEN)
    envelope = json.loads(signed(packed, tmp_path / "evil"))
    envelope["verificationMaterial"]["publicKey"]["hint"] = next(iter(trust.keys(home)))
    assert "not by signing" in refusal(packed, json.dumps(envelope).encode(), home)


def resigned(home: Path, change: Callable[[dict[str, Any]], None], packed: bytes) -> bytes:
    """Sign a statement that was changed first, as whoever holds the key may."""
    envelope = json.loads(signed(packed, home))
    statement = json.loads(base64.b64decode(envelope["dsseEnvelope"]["payload"]))
    change(statement)
    payload = json.dumps(statement).encode()
    mark = keyring.private_key(home, "signing", ask=str).sign(signing.pae(payload), signing.DSA)
    envelope["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    envelope["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(mark).decode()
    return json.dumps(envelope).encode()


STATEMENTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "other statement": lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"),
    "other predicate": lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"),
    "no subject": lambda s: s.update(subject=[]),
    "two subjects": lambda s: s.update(subject=s["subject"] * 2),
    "other root": lambda s: s["subject"][0]["digest"].update(sha256="0" * 64),
    "no resources": lambda s: s["predicate"].update(resources=[]),
    "two resources": lambda s: s["predicate"].update(resources=s["predicate"]["resources"] * 2),
    "a file of a folder": lambda s: s["predicate"]["resources"][0].update(name="model.pkl"),
    "other algorithm": lambda s: s["predicate"]["resources"][0].update(algorithm="blake2b"),
    "digest in capitals": lambda s: s["predicate"]["resources"][0].update(digest="A" * 64),
    "digest is a number": lambda s: s["predicate"]["resources"][0].update(digest=5),
    "shards": lambda s: s["predicate"]["serialization"].update(method="shards"),
    "not an object": lambda s: s.update(predicate=[]),
}


@pytest.mark.parametrize("case", STATEMENTS)
def test_a_statement_of_another_kind_says_nothing_about_a_bundle(case: str, home: Path, packed: bytes) -> None:
    refusal(packed, resigned(home, STATEMENTS[case], packed), home)


def test_a_statement_may_say_more(home: Path, packed: bytes) -> None:
    more = resigned(home, lambda s: s["predicate"].update(card="CARD.md"), packed)
    assert check(packed, more, home)


ENVELOPES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "other media type": lambda e: e.update(mediaType="application/vnd.dev.sigstore.bundle.v0.2+json"),
    "no material": lambda e: e.pop("verificationMaterial"),
    "a certificate": lambda e: e.update(verificationMaterial={"certificate": {"rawBytes": ""}, "tlogEntries": []}),
    "no hint": lambda e: e["verificationMaterial"].update(publicKey={}),
    "hint is a list": lambda e: e["verificationMaterial"]["publicKey"].update(hint=[]),
    "something more": lambda e: e.update(also=1),
    "no envelope": lambda e: e.pop("dsseEnvelope"),
    "message instead": lambda e: e.update(messageSignature=e.pop("dsseEnvelope")),
    "other payload type": lambda e: e["dsseEnvelope"].update(payloadType="application/json"),
    "no signature": lambda e: e["dsseEnvelope"].update(signatures=[]),
    "two signatures": lambda e: e["dsseEnvelope"].update(signatures=e["dsseEnvelope"]["signatures"] * 2),
    "empty signature": lambda e: e["dsseEnvelope"]["signatures"][0].update(sig=""),
    "zero signature": lambda e: e["dsseEnvelope"]["signatures"][0].update(sig="MAYCAQACAQA="),
    "base64 with a gap": lambda e: e["dsseEnvelope"].update(payload=" " + e["dsseEnvelope"]["payload"]),
    "base64 for URLs": lambda e: e["dsseEnvelope"]["signatures"][0].update(sig="_-_-"),
    "text beyond ASCII": lambda e: e["dsseEnvelope"].update(payload="ä"),
    "a lone surrogate": lambda e: e["dsseEnvelope"].update(payload="\ud800"),
}


@pytest.mark.parametrize("case", ENVELOPES)
def test_an_envelope_of_another_form_is_refused(case: str, home: Path, packed: bytes) -> None:
    envelope = json.loads(signed(packed, home))
    ENVELOPES[case](envelope)
    refusal(packed, json.dumps(envelope).encode(), home)


NOISE = [b"", b"null", b"[]", b'"sig"', b"1", b"{", b"\xff\xfe", b"PK\x03\x04"]
NOISE += [b"[" * 200_000, b'{"a":' * 100_000, b" " * 2_000_000]


@pytest.mark.parametrize("noise", NOISE, ids=lambda noise: repr(noise[:6]))
def test_noise_is_no_signature(noise: bytes, home: Path, packed: bytes) -> None:
    refusal(packed, noise, home)


def test_names_that_stand_twice_are_refused_wherever_they_stand(home: Path, packed: bytes) -> None:
    text = signed(packed, home).decode()
    assert "twice" in refusal(packed, text.replace('"keyid":""', '"keyid":"","keyid":""').encode(), home)
    assert "twice" in refusal(packed, ('{"mediaType":1,' + text[1:]).encode(), home)


def test_every_other_way_to_write_the_same_base64_is_refused(home: Path, packed: bytes) -> None:
    envelope = json.loads(signed(packed, home))
    for holder, name in ((envelope["dsseEnvelope"], "payload"), (envelope["dsseEnvelope"]["signatures"][0], "sig")):
        good = holder[name]
        for other in (good.rstrip("="), good + "=", good + "\n", good[:4] + "\n" + good[4:]):
            if other != good:
                holder[name] = other
                refusal(packed, json.dumps(envelope).encode(), home)
        holder[name] = good


# loading


def test_a_bundle_opens_with_its_signature_and_not_with_a_wrong_one(home: Path, path: Path, packed: bytes) -> None:
    assert load(path, home=home).bundle.signed_by == ""
    beside(path).write_bytes(signed(packed, home))
    opened = load(path, home=home)
    assert opened.bundle.signed_by == next(iter(trust.keys(home)))
    for wrong in (b"", b"{}", signed(b"other bytes", home), os.urandom(1 << 21)):
        beside(path).write_bytes(wrong)
        with pytest.raises(BadSignature) as caught:
            load(path, home=home)
        assert caught.value.hint
    keyring.revoke(home, "signing", when=WHEN)
    beside(path).write_bytes(signed(packed, home))
    with pytest.raises(BadSignature, match="revoked"):
        load(path, home=home)


def test_what_lies_beside_a_bundle_must_be_a_file(home: Path, path: Path) -> None:
    beside(path).mkdir()
    with pytest.raises(BadSignature, match="not a file"):
        load(path, home=home)
    beside(path).rmdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(beside(path))
        with pytest.raises(BadSignature, match="not a file"):
            load(path, home=home)
        beside(path).unlink()
        beside(path).symlink_to("nowhere")
        with pytest.raises(BadSignature, match="not a file"):
            load(path, home=home)


def test_a_signature_can_be_required(
    home: Path, path: Path, packed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model.pkl"
    model.write_bytes(pickle.dumps(models.vectorized()))
    for each in (path, model):
        with pytest.raises(BadSignature, match="one is required"):
            load(each, home=home, require_signature=True)
    monkeypatch.setenv("KETCH_REQUIRE_SIGNATURE", "yes")
    with pytest.raises(BadSignature, match="one is required"):
        load(path, home=home)
    beside(path).write_bytes(signed(packed, home))
    assert load(path, home=home).predict(models.rows()[0])
    assert settings.requires_signature({}) is False
    with pytest.raises(SettingError, match="KETCH_REQUIRE_SIGNATURE"):
        settings.requires_signature({"KETCH_REQUIRE_SIGNATURE": "maybe"})


def test_a_project_may_not_say_whether_signatures_are_required(tmp_path: Path) -> None:
    (tmp_path / "ketch.toml").write_text("require_signature = false\n")
    with pytest.raises(SettingError, match="may not decide"):
        settings.read({}, environ={}, folder=tmp_path)


def test_a_trusted_signature_permits_the_code_in_a_bundle_and_nothing_less_does(tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(softmax), LinearRegression())
    made = compose(model.fit(models.numbers(), models.prices()), None, Options(name="own"), home=tmp_path / "maker")
    keyring.new(tmp_path / "maker", "maker", passphrase="", when=WHEN)
    path = tmp_path / "own.ketch"
    path.write_bytes(made.data)
    user = tmp_path / "user"
    with pytest.raises(TrustError, match="softmax"):
        load(path, home=user)
    beside(path).write_bytes(signed(made.data, tmp_path / "maker", "maker"))
    with pytest.raises(BadSignature, match="not trusted here"):
        load(path, home=user)
    pem = trust.keys(tmp_path / "maker").popitem()[1].pem.encode()
    keyring.trust_key(user, pem, "maker", source="maker.pem", when=WHEN)
    assert load(path, home=user).replay() == 0.0
    assert not (user / "approvals.json").exists()
    keyring.revoke(user, "maker", when=WHEN)
    with pytest.raises(BadSignature, match="revoked"):
        load(path, home=user)
    beside(path).unlink()
    with pytest.raises(TrustError, match="softmax"):
        load(path, home=user)


def test_a_signature_travels_with_its_version(home: Path, packed: bytes, tmp_path: Path) -> None:
    store = Store(home / "store")
    version = store.push(packed, "churn", when=WHEN)
    assert store.signature("churn") is None
    assert load("churn", home=home).bundle.signed_by == ""
    signature = signed(packed, home)
    again = store.push(packed, "churn", when="2026-12-01", signature=signature)
    assert (again.number, again.pushed_at) == (version.number, WHEN)
    assert store.signature("churn:1") == signature
    assert load("churn", home=home).bundle.signed_by
    store.push(packed, "churn", when="2026-12-01")
    assert store.signature("churn") == signature, "pushing without one does not take it away"
    store.push(packed, "churn", when="2026-12-01", signature=signed(b"other", home))
    with pytest.raises(BadSignature):
        load("churn", home=home)


# the command line


def test_the_whole_road_by_command(path: Path, tmp_path: Path) -> None:
    home, other = tmp_path / "mine", tmp_path / "yours"

    def told(*words: str | Path, home: Path = home, code: int = 0, **environ: str) -> Done:
        done = run(*words, home=home, cwd=tmp_path, **environ)
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr
        return done

    assert "ketch keys new" in told("sign", path, code=1).stderr
    made = told("keys", "new", "alice", "--for", "signing")
    number = made.stdout.split()[1]
    assert "keep it to yourself" in made.stderr
    assert number in told("sign", path).stdout
    assert told("verify", path).stdout.startswith(f"churn.ketch is signed by alice: key {number}, sha256=")
    assert "not trusted here" in told("verify", path, home=other, code=1).stderr
    assert "not trusted here" in told("score", path, "x.csv", "-o", "y.csv", home=other, code=1).stderr
    (tmp_path / "alice.pub.pem").write_text(told("keys", "export", "alice").stdout)
    assert "signed by alice.pub.pem" in told("verify", path, "--key", "alice.pub.pem", home=other).stdout
    assert told("keys", "trust", "alice.pub.pem", home=other).stdout.split() == ["alice", number]
    assert "signed by alice" in told("verify", path, home=other).stdout
    told("push", path)
    told("pull", "churn", "-o", "copy.ketch")
    assert (tmp_path / "copy.ketch.sig").read_bytes() == beside(path).read_bytes()
    assert "churn:1 is signed by alice" in told("verify", "churn:1").stdout
    told("keys", "revoke", "alice", home=other)
    assert "revoked" in told("keys", "list", home=other).stdout
    assert "revoked" in told("verify", path, "--key", "alice.pub.pem", home=other, code=1).stderr
    beside(path).unlink()
    assert "one is required" in told("verify", path, code=1).stderr
    words = ("score", path, "x.csv", "-o", "y.csv")
    assert "one is required" in told(*words, code=1, KETCH_REQUIRE_SIGNATURE="1").stderr
    assert "one is required" in told(*words, "--require-signature", code=1).stderr
    assert "one is required" in told("serve", path, "--port", "0", "--require-signature", code=1).stderr


def test_keys_and_signing_at_the_command_line_say_what_is_wrong(path: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    keyring.new(home, "locked", passphrase="correct horse", when=WHEN)
    keyring.new(home, "second", passphrase="", when=WHEN)
    keyring.revoke(home, "second", when=WHEN)
    (tmp_path / "wide.pem").write_bytes(foreign("P-384"))
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(1))
    wrong = {
        ("sign", "churn.ketch"): "--key: locked, second",
        ("sign", "churn.ketch", "--key", "third"): "locked, second",
        ("sign", "churn.ketch", "--key", "locked"): "KETCH_KEY_PASSPHRASE",
        ("sign", "churn.ketch", "--key", "second"): "ketch keys new",
        ("sign", "model.pkl"): "ketch pack",
        ("sign", "nothing.ketch"): "path",
        ("verify", "churn.ketch"): "ketch sign",
        ("verify", "churn.ketch", "--key", "nothing.pem"): "path",
        ("verify", "churn.ketch", "--key", "wide.pem"): "P-256",
        ("keys", "trust", "wide.pem"): "P-256",
        ("keys", "trust", "model.pkl"): "PEM",
        ("keys", "revoke", "nobody"): "locked, second",
        ("keys", "export", "nobody"): "locked, second",
        ("keys", "new", "locked", "--for", "signing"): "another name",
        ("keys", "new"): "--help",
        ("keys",): "--help",
    }
    for words, remedy in wrong.items():
        done = run(*words, home=home, cwd=tmp_path)
        assert done.returncode in {1, 2}, (words, done)
        assert remedy in done.stderr, (words, done.stderr)
        assert len(done.stderr.splitlines()) <= 4, (words, done.stderr)
    done = run("sign", "churn.ketch", "--key", "locked", home=home, cwd=tmp_path, KETCH_KEY_PASSPHRASE="correct horse")
    assert done.returncode == 0, done.stderr
    first, second = (run("keys", "new", "--for", "calling", home=home).stdout.strip() for _ in range(2))
    assert first != second
    assert len(first) > 40


# OpenSSF model_signing, its own command


def model_signing(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "model_signing", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


@pytest.mark.packing
def test_model_signing_verifies_what_ketch_signed(home: Path, path: Path, packed: bytes) -> None:
    beside(path).write_bytes(signed(packed, home))
    words = ("verify", "key", path, "--public_key", home / "keys" / "signing.pub.pem", "--signature", beside(path))
    done = model_signing(*words)
    assert (done.returncode, done.stdout) == (0, "Verification succeeded\n"), done
    path.write_bytes(packed + b"\0")
    assert model_signing(*words).returncode == 1


def test_ketch_verifies_what_model_signing_signed(home: Path, path: Path, packed: bytes) -> None:
    words = ("sign", "key", path, "--private_key", home / "keys" / "signing.pem", "--signature", beside(path))
    done = model_signing(*words)
    assert done.returncode == 0, done
    assert load(path, home=home, require_signature=True).bundle.signed_by == next(iter(trust.keys(home)))
    assert "is not the file" in refusal(packed + b"\0", beside(path).read_bytes(), home)


def test_a_folder_signed_by_model_signing_is_no_bundle(home: Path, path: Path, packed: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path.rename(folder / "churn.ketch")
    words = ("sign", "key", folder, "--private_key", home / "keys" / "signing.pem", "--signature", tmp_path / "s.sig")
    assert model_signing(*words).returncode == 0
    refusal(packed, (tmp_path / "s.sig").read_bytes(), home)


def test_every_refusal_is_one_of_ours_and_the_doorway_stays_light() -> None:
    assert issubclass(BadSignature, KetchError)
    assert Key.__doc__
    code = "import sys, ketch.predict, ketch.trust; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert len(ketch.__all__) <= 16
