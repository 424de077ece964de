"""Tokens that somebody else has signed (`auth.mode = "jwt"`)."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mqtt_im.bridge.logins.jwts import JwtVerifier
from mqtt_im.bridge.logins.signed import WrongToken
from mqtt_im.config import AuthConfig, Config, JwtConfig
from mqtt_im.config.checks import check
from mqtt_im.protocol.errors import MqttImError

SECRET = "a secret of more than thirty-two bytes, as it should be, and of sixty-four for the longest"
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def pem(private: Any) -> bytes:
    data: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return data


def signed(key: Any, algorithm: str, headers: dict[str, Any] | None = None, **claims: Any) -> bytes:
    fields = {"sub": "alice", "exp": int(time.time()) + 600, **claims}
    return jwt.encode({name: value for name, value in fields.items() if value is not None}, key, algorithm, headers).encode()


def verifier(folder: Path, data: bytes, **fields: Any) -> JwtVerifier:
    file = folder / "key"
    file.write_bytes(data)
    return JwtVerifier(JwtConfig(key=str(file), **fields))


@pytest.mark.parametrize(("private", "algorithm"), [(RSA, "RS256"), (EC, "ES256"), (ED, "EdDSA")])
def test_public_keys(tmp_path: Path, private: Any, algorithm: str) -> None:
    made = verifier(tmp_path, pem(private))
    assert made.verify(signed(private, algorithm), "alice").user == "alice"
    assert made.verify(signed(private, algorithm), None).user == "alice"
    for other, name in ((RSA, "RS256"), (EC, "ES256"), (ED, "EdDSA")):
        if other is not private:
            with pytest.raises(WrongToken):
                made.verify(signed(other, name), "alice")


def test_a_secret_and_what_is_looked_at(tmp_path: Path) -> None:
    made = verifier(tmp_path, SECRET.encode() + b"\n", algorithms=("HS256",), issuer="us", audience="chat", user_claim="name")
    good: dict[str, Any] = {"name": "bob", "iss": "us", "aud": ["web", "chat"]}
    claims = made.verify(signed(SECRET, "HS256", **good), "bob")
    assert claims.user == "bob"
    assert claims.expires is not None and claims.expires > time.time() * 1000
    for wrong in (
        {"iss": "them"},
        {"iss": None},
        {"aud": "web"},
        {"aud": None},
        {"exp": int(time.time()) - 1},
        {"exp": None},
        {"name": None},
        {"name": "a b"},
        {"name": 7},
        {"nbf": int(time.time()) + 600},
    ):
        with pytest.raises(WrongToken):
            made.verify(signed(SECRET, "HS256", **{**good, **wrong}), None)
    with pytest.raises(WrongToken):
        made.verify(signed(SECRET, "HS256", **good), "alice")
    with pytest.raises(WrongToken):
        made.verify(signed(SECRET, "HS512", **good), "bob")
    with pytest.raises(WrongToken):
        made.verify(signed("another secret of more than thirty-two bytes", "HS256", **good), "bob")


def test_without_issuer_audience_and_end(tmp_path: Path) -> None:
    made = verifier(tmp_path, SECRET.encode(), algorithms=("HS256",), require_exp=False)
    assert made.verify(signed(SECRET, "HS256", aud="anything", iss="anybody", exp=None), "alice").expires is None
    late = verifier(tmp_path, SECRET.encode(), algorithms=("HS256",), leeway_s=60)
    assert late.verify(signed(SECRET, "HS256", exp=int(time.time()) - 30), "alice").user == "alice"


def test_a_set_of_keys(tmp_path: Path) -> None:
    one = {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA.public_key())), "kid": "one"}
    two = {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(EC.public_key())), "kid": "two", "alg": "ES256"}
    made = verifier(tmp_path, json.dumps({"keys": [one, two]}).encode())
    assert made.verify(signed(RSA, "RS256", {"kid": "one"}), "alice").user == "alice"
    assert made.verify(signed(EC, "ES256", {"kid": "two"}), "alice").user == "alice"
    assert made.verify(signed(RSA, "RS256"), "alice").user == "alice"
    for token in (signed(RSA, "RS256", {"kid": "two"}), signed(RSA, "RS256", {"kid": "three"}), signed(ED, "EdDSA")):
        with pytest.raises(WrongToken):
            made.verify(token, "alice")


def test_a_public_key_is_no_secret(tmp_path: Path) -> None:
    """Whoever has the public key could sign with it, if it were taken for a secret."""
    made = verifier(tmp_path, pem(RSA), algorithms=("RS256", "HS256"))
    header, payload = (jwt.utils.base64url_encode(json.dumps(part).encode()) for part in ({"alg": "HS256"}, {"sub": "alice"}))
    import hashlib
    import hmac

    mac = jwt.utils.base64url_encode(hmac.digest(pem(RSA), header + b"." + payload, hashlib.sha256))
    nothing = jwt.utils.base64url_encode(json.dumps({"alg": "none"}).encode())
    for token in (header + b"." + payload + b"." + mac, nothing + b"." + payload + b".", b"", b"x", b"a.b.c", b"." * 20_000):
        with pytest.raises(WrongToken):
            made.verify(token, "alice")


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", b"{", b"{}", b'{"keys": []}', b"secret"]
)
def test_keys_that_can_t_be_used(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(MqttImError, match=r"auth\.jwt\.key"):
        verifier(tmp_path, data)


def test_the_configuration(tmp_path: Path) -> None:
    def mistakes(**fields: Any) -> str:
        return "\n".join(check(Config(auth=AuthConfig(mode="jwt", jwt=JwtConfig(**fields)))))

    key = tmp_path / "key.pem"
    key.write_bytes(pem(RSA))
    assert mistakes(key=str(key)) == ""
    assert "auth.jwt.key: needed" in mistakes()
    assert "there is no file" in mistakes(key=str(tmp_path / "none"))
    assert "can't go with a key in PEM" in mistakes(key=str(key), algorithms=("RS256", "HS256"))
    assert "'none'" in mistakes(key=str(key), algorithms=("none",))
    assert "auth.http.url: needed" in "\n".join(check(Config(auth=AuthConfig(mode="http"))))


@pytest.mark.parametrize(
    "token", [b"", b".", b"..", b"a.b.c", b"e30", b"W10.e30.x", b"bnVsbA.e30.x", b"\xff.e30.x", b"W" * 16_000, b"W1tb" * 4_000]
)
def test_what_is_no_token_is_wrong(tmp_path: Path, token: bytes) -> None:
    made = verifier(tmp_path, SECRET.encode(), algorithms=("HS256",))
    with pytest.raises(WrongToken):
        made.verify(token, "alice")
