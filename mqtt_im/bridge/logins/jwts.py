"""`auth.mode = "jwt"`: tokens that somebody else has signed (RFC 7519), verified with a secret, a public key or a set of keys."""

from __future__ import annotations

import base64
import warnings
from pathlib import Path
from typing import Any, Final

import jwt
import msgspec
from jwt.warnings import InsecureKeyLengthWarning

from mqtt_im.config import JwtConfig
from mqtt_im.protocol import names, numbers
from mqtt_im.protocol.errors import MqttImError

from .signed import Claims, WrongToken

MAX_BYTES: Final = 16_384
"""A longer token is never right."""

# A short secret is the operator's choice; it is not worth a line for each login.
warnings.filterwarnings("ignore", category=InsecureKeyLengthWarning)


class JwtVerifier:
    """Verifies tokens with the key of the configuration. Raises `MqttImError` where that cannot be used."""

    def __init__(self, config: JwtConfig) -> None:
        self._config = config
        self._keys = _load(config)

    def verify(self, token: bytes, user: str | None) -> Claims:
        """What the token says of who shows it; `user` is who that says to be. Raises `WrongToken`."""
        if len(token) > MAX_BYTES:
            raise WrongToken("the token is too long")
        try:
            header = _header(token)
            claims = self._claims(token, header)
        except (jwt.PyJWTError, msgspec.DecodeError, ValueError, TypeError, RecursionError) as error:
            raise WrongToken(f"the token is not valid: {error}") from None
        name = claims.get(self._config.user_claim)
        if not isinstance(name, str) or not names.is_user(name):
            raise WrongToken(f"the token's claim {self._config.user_claim} is no user id")
        if user is not None and user != name:
            raise WrongToken("the token is another user's")
        expires = claims.get("exp")
        return Claims(name, None if expires is None else int((float(expires) + self._config.leeway_s) * 1000))

    def _claims(self, token: bytes, header: dict[str, Any]) -> dict[str, Any]:
        config = self._config
        algorithm = header.get("alg")
        if algorithm not in config.algorithms:
            raise jwt.InvalidAlgorithmError(f"the algorithm {str(algorithm)[:16]!r} is not allowed here")
        required = ["exp"] if config.require_exp else []
        for key in self._keys.of(header.get("kid"), algorithm):
            try:
                found: dict[str, Any] = jwt.decode(
                    token,
                    key,
                    algorithms=[algorithm],
                    leeway=config.leeway_s,
                    issuer=config.issuer or None,
                    audience=config.audience or None,
                    options={"require": required, "verify_aud": bool(config.audience), "verify_iss": bool(config.issuer)},
                )
            except (jwt.InvalidSignatureError, jwt.InvalidKeyError):
                continue
            return found
        raise jwt.InvalidSignatureError("no key here has signed it")


def _header(token: bytes) -> dict[str, Any]:
    """What the token says of its key. Its library would look at all of it for that, letter by letter, and does so again."""
    part = token.partition(b".")[0]
    found = numbers.decode(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)))
    if not isinstance(found, dict):
        raise ValueError("its header is none")
    return found


class _Keys:
    """The keys of one file."""

    def __init__(self, single: Any, many: list[dict[str, Any]]) -> None:
        self._single = single
        self._many = many
        self._made: dict[tuple[int, str], Any] = {}

    def of(self, kid: object, algorithm: str) -> list[Any]:
        """Those that may have signed a token with this `kid`, if it has one, by this algorithm."""
        if self._single is not None:
            return [self._single]
        found = []
        for number, fields in enumerate(self._many):
            if (kid is not None and fields.get("kid") not in (None, kid)) or fields.get("alg") not in (None, algorithm):
                continue
            if (number, algorithm) not in self._made:
                try:
                    self._made[number, algorithm] = jwt.PyJWK(fields, algorithm)
                except (jwt.PyJWTError, ValueError, TypeError):
                    self._made[number, algorithm] = None  # a key of another kind
            found.append(self._made[number, algorithm])
        return [key for key in found if key is not None]


def is_pem(data: bytes) -> bool:
    """Whether this is a key in PEM (RFC 7468)."""
    return data.lstrip().startswith(b"-----BEGIN ")


def _load(config: JwtConfig) -> _Keys:
    try:
        data = Path(config.key).read_bytes()
    except OSError as error:
        raise _broken(config, error.strerror or str(error)) from None
    if is_pem(data):
        return _Keys(_public_key(config, data), [])
    if data.lstrip().startswith(b"{"):
        return _Keys(None, _key_set(config, data))
    secret = data.removesuffix(b"\n").removesuffix(b"\r")
    if not secret:
        raise _broken(config, "it is empty")
    if not any(algorithm.startswith("HS") for algorithm in config.algorithms):
        raise _broken(config, "it is neither PEM nor a JWKS, and auth.jwt.algorithms has no HS256, HS384 or HS512 for a secret")
    return _Keys(secret, [])


def _public_key(config: JwtConfig, data: bytes) -> Any:
    for algorithm in config.algorithms:
        try:
            return jwt.get_algorithm_by_name(algorithm).prepare_key(data)
        except (jwt.PyJWTError, ValueError, TypeError, NotImplementedError):
            continue
    raise _broken(config, f"it is no key for {', '.join(config.algorithms)}")


def _key_set(config: JwtConfig, data: bytes) -> list[dict[str, Any]]:
    try:
        fields = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise _broken(config, f"it is no JSON: {error}") from None
    keys = fields.get("keys", [fields] if "kty" in fields else None)
    if not isinstance(keys, list) or not all(isinstance(key, dict) and "kty" in key for key in keys) or not keys:
        raise _broken(config, "it is no JWKS: expected keys, a list of at least one")
    made = _Keys(None, keys)
    if not any(made.of(key.get("kid"), algorithm) for key in keys for algorithm in config.algorithms):
        raise _broken(config, f"none of its keys is for {', '.join(config.algorithms)}")
    return keys


def _broken(config: JwtConfig, why: str) -> MqttImError:
    return MqttImError("start", f"auth.jwt.key: {config.key} can't be used: {why}")
