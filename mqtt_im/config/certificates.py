"""What there is to know of certificate files before a server uses them: whether they fit, and how long they are good."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

_INTEGER, _UTC_TIME, _GENERALIZED_TIME = 0x02, 0x17, 0x18
_CERTIFICATE: Final = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----")
_NOT_TOGETHER: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
"""OpenSSL's words for it: of another pair, or of another kind of key."""
_REVOCATIONS: Final = ("-----BEGIN X509 CRL-----", "-----END X509 CRL-----")


def pair_problem(cert: str, key: str) -> str | None:
    """Why a server could not use this certificate with this key; None where it could."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason in _NOT_TOGETHER:
            return "certificate and key do not belong together"
        return f"certificate or key is no PEM file that can be used: {error.reason or error}"
    except (OSError, ValueError) as error:
        return f"certificate or key can't be read: {getattr(error, 'strerror', None) or error}"
    return None


def trust_problem(file: str, kind: Literal["x509", "crl"]) -> str | None:
    """Why a server could not go by the certificates, or the revocation lists, of this file; None where it could."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(file)
    except (OSError, ValueError) as error:
        return f"{file} is no PEM file that can be used: {getattr(error, 'reason', None) or error}"
    if not context.cert_store_stats()[kind]:
        return f"there is no {'certificate' if kind == 'x509' else 'revocation list'} in {file}"
    return None


def _no_password() -> str:
    raise ValueError("the key is encrypted; a server can't ask for its password")


def certificate_ends(file: str) -> list[datetime]:
    """When each certificate in a PEM file ends. Raises `ValueError` where there is none, `OSError`."""
    return _ends(file, _CERTIFICATE, skipped=3)


def revocations_end(file: str) -> list[datetime]:
    """When each list of revoked certificates in a PEM file ends. Raises `ValueError` where there is none, `OSError`."""
    return _ends(file, _REVOCATIONS, skipped=2)


def _ends(file: str, marks: tuple[str, str], skipped: int) -> list[datetime]:
    """The later of the two times in each, which stand in both after `skipped` entries (RFC 5280, 4.1 and 5.1)."""
    found = []
    text = Path(file).read_text(encoding="utf-8", errors="replace")
    begin, end = marks
    for part in text.split(begin)[1:]:
        if end not in part:
            raise ValueError(f"{file}: an entry is cut off")
        der = ssl.PEM_cert_to_DER_cert("\n".join((_CERTIFICATE[0], part.partition(end)[0].strip(), _CERTIFICATE[1])))
        try:
            found.append(_end(der, skipped))
        except (IndexError, ValueError):
            raise ValueError(f"{file}: an entry can't be read") from None
    if not found:
        raise ValueError(f"{file}: there is no {begin.strip('- ').removeprefix('BEGIN ')} in it")
    return found


def _end(der: bytes, skipped: int) -> datetime:
    entries = _values(_values(_values(der)[0][1])[0][1])
    # A version comes first, or not: [0] of a certificate, a number of a list.
    if skipped == 3:
        entries = entries[1:] if entries[0][0] == 0xA0 else entries
        times = [_time(tag, value) for tag, value in _values(entries[skipped][1])]
    else:
        entries = entries[1:] if entries[0][0] == _INTEGER else entries
        times = [_time(tag, value) for tag, value in entries[skipped:] if tag in (_UTC_TIME, _GENERALIZED_TIME)]
    return max(times)


def _values(der: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of each value (X.690)."""
    found, at = [], 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(der[at : at + size], "big")
            at += size
        found.append((tag, der[at : at + length]))
        at += length
    return found


def _time(tag: int, value: bytes) -> datetime:
    text = value.decode("ascii")
    if tag == _UTC_TIME:  # 50 to 99 are of the last century
        text = ("19" if text[0] >= "5" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
