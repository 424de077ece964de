"""What the standards of Web Push ask for: encrypted content (RFC 8291 over RFC 8188) and signed requests (VAPID, RFC 8292)."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

RECORD_BYTES: Final = 4096
"""A push service takes at least so much (RFC 8030, section 7.2), and browsers one record (RFC 8291, section 4)."""
MAX_CONTENT_BYTES: Final = RECORD_BYTES - 86 - 17
"""What is left for content: less the header with its key, the tag, and the byte that ends it."""
TOKEN_S: Final = 12 * 3600
"""A VAPID token may live for 24 hours (RFC 8292, section 2)."""
_POINT_BYTES: Final = 65
_AUTH_BYTES: Final = 16


def b64url(data: bytes) -> str:
    """Base64 for URLs, without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_b64url(text: str) -> bytes:
    """The bytes of it. Raises `ValueError`."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def check_keys(p256dh: str, auth: str) -> None:
    """A browser's two keys are what they should be. Raises `ValueError` with the name of the one that is not."""
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), from_b64url(p256dh))
        fits = len(from_b64url(p256dh)) == _POINT_BYTES
    except ValueError:
        fits = False
    if not fits:
        raise ValueError("p256dh")
    try:
        fits = len(from_b64url(auth)) == _AUTH_BYTES
    except ValueError:
        fits = False
    if not fits:
        raise ValueError("auth")


def encrypt(content: bytes, p256dh: str, auth: str) -> bytes:
    """`content` as one record that only the browser with these keys can read. Raises `ValueError` where it is too long."""
    if len(content) > MAX_CONTENT_BYTES:
        raise ValueError(f"{len(content)} bytes, of at most {MAX_CONTENT_BYTES}")
    theirs = from_b64url(p256dh)
    once = ec.generate_private_key(ec.SECP256R1())
    ours = _point(once.public_key())
    shared = once.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), theirs))
    secret = _derive(from_b64url(auth), shared, b"WebPush: info\0" + theirs + ours, 32)
    salt = os.urandom(16)
    key = _derive(salt, secret, b"Content-Encoding: aes128gcm\0", 16)
    nonce = _derive(salt, secret, b"Content-Encoding: nonce\0", 12)
    sealed = AESGCM(key).encrypt(nonce, content + b"\x02", None)
    return salt + RECORD_BYTES.to_bytes(4, "big") + bytes([len(ours)]) + ours + sealed


def new_key() -> bytes:
    """A P-256 key that nobody has had, as PEM."""
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(pem, pkcs8, serialization.NoEncryption())


class Vapid:
    """The server's identity towards push services."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, contact: str) -> None:
        self._key = key
        self._contact = contact
        self.public = b64url(_point(key.public_key()))
        """What browsers subscribe with (`applicationServerKey`)."""

    @classmethod
    def open(cls, file: Path, contact: str) -> Vapid:
        """The key in this file, which is made where it is missing. Raises `OSError`, or `ValueError` where it is no such key."""
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            data = new_key()
            partly = file.with_suffix(".new")
            with os.fdopen(os.open(partly, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600), "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            partly.replace(file)
        return cls.of(data, contact)

    @classmethod
    def of(cls, pem: bytes, contact: str) -> Vapid:
        """With this key. Raises `ValueError` where it is no P-256 key."""
        key = serialization.load_pem_private_key(pem, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("not a P-256 key")
        return cls(key, contact)

    def authorization(self, origin: str, now_s: int) -> str:
        """The header `Authorization` for a push service."""
        claims = {"aud": origin, "exp": now_s + TOKEN_S, "sub": self._contact}
        signed = ".".join(b64url(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ES256"}, claims))
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"vapid t={signed}.{b64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}, k={self.public}"


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def _derive(salt: bytes, secret: bytes, info: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)
