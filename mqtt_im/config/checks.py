"""What a single key's type can't say: rules between keys, and the syntax of addresses, topics and paths."""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from mqtt_im.config.addresses import Address, parse_bind
from mqtt_im.config.certificates import pair_problem, trust_problem
from mqtt_im.config.schema import Config
from mqtt_im.config.sections.listeners import HttpTlsConfig, TlsConfig
from mqtt_im.config.sections.logins import JwtConfig
from mqtt_im.mqtt import topics as mqtt_topics
from mqtt_im.protocol import topics

ALGORITHMS = (*(f"{kind}{bits}" for kind in ("HS", "RS", "PS", "ES") for bits in (256, 384, 512)), "EdDSA")
"""What `auth.jwt.algorithms` may name."""
_HEADER_NAME = re.compile(r"[0-9A-Za-z!#$%&'*+.^_`|~-]+")
DATABASE_URLS = ("postgresql://", "postgres://")
"""A store whose place begins so is in PostgreSQL; any other is a folder."""


def check(config: Config) -> Iterator[str]:
    """One line, `key: what is wrong`, for each mistake."""
    listeners: dict[str, Address] = {}
    for key, text in binds(config).items():
        try:
            address = parse_bind(text)
        except ValueError as error:
            yield f"{key}: {error}"
            continue
        if address is not None:
            yield from _check_free(key, address, listeners)
            listeners[key] = address
    if not any(binds(config).values()):
        yield "mqtt.bind: every listener is switched off, so nobody could connect"
    if not config.data_dir:
        yield "data_dir: must not be empty"
    yield from _check_home(config)
    if config.limits.max_body_bytes >= config.limits.max_packet_bytes:
        yield (
            f"limits.max_body_bytes: {config.limits.max_body_bytes} does not fit into limits.max_packet_bytes, "
            f"{config.limits.max_packet_bytes}, which holds other fields too"
        )
    yield from _check_topics(config)
    yield from _check_tls("mqtt.tls", config.mqtt.tls, config.mqtt.tls.client_ca, config.mqtt.tls.crl)
    yield from _check_tls("http.tls", config.http.tls)
    yield from _check_http(config)
    yield from _check_auth(config, listeners)
    if config.webpush.contact and not config.webpush.contact.startswith(("mailto:", "https://")):
        yield 'webpush.contact: expected "mailto:…" or "https://…"'
    yield from _check_receiver("push", config.push.url, config.push.secret)
    yield from _check_receiver("hooks", config.hooks.url, config.hooks.secret)
    for name in config.mqtt.plugins:
        if "." not in name or not all(part.isidentifier() for part in name.split(".")):
            yield f'mqtt.plugins: {name!r} is no dotted name of a class, like "my_package.MyPlugin"'
    yield from _check_cluster(config)
    yield from _check_files(config)
    path = config.websocket.path
    if not path.startswith("/"):
        yield f'websocket.path: must begin with "/", got {path!r}'
    elif not path.isascii() or not path.isprintable() or set(path) & set(" ?#%"):
        yield f"websocket.path: no client can ask for {path!r}; it is ASCII, without spaces, ?, # and %"


def _check_cluster(config: Config) -> Iterator[str]:
    """The URL is not shown, since it may hold a password."""
    if config.store.url:
        if not config.store.url.startswith(DATABASE_URLS):
            yield 'store.url: expected "postgresql://user:password@host/database", or nothing for SQLite'
        elif importlib.util.find_spec("psycopg") is None:
            yield "store.url: PostgreSQL needs the extra: pip install 'mqtt-im[postgres]'"
    reference = config.cluster.server_reference
    try:
        fits = not reference or parse_bind(reference) is not None
    except ValueError:
        fits = False
    if not fits:
        yield f'cluster.server_reference: expected "host:port", got {reference!r}'


def _check_files(config: Config) -> Iterator[str]:
    if not config.files.url:
        return
    try:
        parts = urlsplit(config.files.url)
    except ValueError:  # the host
        parts = urlsplit("")
    if parts.scheme == "s3" and parts.netloc:
        if importlib.util.find_spec("boto3") is None:
            yield "files.url: S3 needs the extra: pip install 'mqtt-im[s3]'"
    elif parts.scheme != "file":
        yield 'files.url: expected "s3://bucket/prefix" or "file:///folder", or nothing for data_dir/files'
    elif parts.netloc or not parts.path.startswith("/"):
        yield 'files.url: "file:///folder" is a whole path on this machine'


def _check_receiver(section: str, url: str, secret: str) -> Iterator[str]:
    """A receiver of webhooks. The URL is not shown, since it may hold a token."""
    if not url:
        return
    wrong = list(_check_url(f"{section}.url", url))
    yield from wrong
    if not wrong and urlsplit(url).username is not None:
        yield f"{section}.url: can't hold a name or password; the receiver knows this server by its signature"
    if not secret:
        yield f"{section}.secret: needed by {section}.url; make one with: openssl rand -hex 32"


def binds(config: Config) -> dict[str, str]:
    """The text of each listener's `bind`, by its key; empty where it is off."""
    return {
        "mqtt.bind": config.mqtt.bind,
        "mqtt.tls.bind": config.mqtt.tls.bind,
        "websocket.bind": config.websocket.bind,
        "http.bind": config.http.bind,
        "http.tls.bind": config.http.tls.bind,
        "http.metrics_bind": config.http.metrics_bind,
    }


def _check_free(key: str, address: Address, taken: dict[str, Address]) -> Iterator[str]:
    for other, used in taken.items():
        if address.port and address.overlaps(used):
            if address == used:
                yield f"{key}: {address} is the address of {other} already"
            else:
                yield f"{key}: {address} and {used}, the address of {other}, overlap"


def _check_home(config: Config) -> Iterator[str]:
    """A shell would know what `~` is; nobody else does."""
    paths = {
        "data_dir": config.data_dir,
        "mqtt.tls.cert": config.mqtt.tls.cert,
        "mqtt.tls.key": config.mqtt.tls.key,
        "mqtt.tls.client_ca": config.mqtt.tls.client_ca,
        "mqtt.tls.crl": config.mqtt.tls.crl,
        "http.tls.cert": config.http.tls.cert,
        "http.tls.key": config.http.tls.key,
    }
    for key, path in paths.items():
        if path.startswith("~"):
            yield f'{key}: "~" is not expanded; write the whole path'


def _check_topics(config: Config) -> Iterator[str]:
    prefix = config.mqtt.prefix
    if not mqtt_topics.valid_topic(prefix) or "" in prefix.split("/") or prefix.startswith("$") or len(prefix) > 128:
        yield (
            f"mqtt.prefix: {prefix!r} is no prefix; it is 1 to 128 characters without wildcards, no level is empty, and "
            'it does not begin with "$"'
        )
        return
    ours = topics.Topics(prefix)
    for text in config.mqtt.plain_topics:
        bare = text.removeprefix("!")
        if not mqtt_topics.valid_filter(bare):
            yield f"mqtt.plain_topics: {text!r} is no topic filter"
        elif ours.owns(bare):
            yield f"mqtt.plain_topics: {text!r} lies under mqtt.prefix, which is closed to plain MQTT"


def _check_tls(section: str, tls: TlsConfig | HttpTlsConfig, client_ca: str = "", crl: str = "") -> Iterator[str]:
    files = {f"{section}.cert": tls.cert, f"{section}.key": tls.key, f"{section}.client_ca": client_ca, f"{section}.crl": crl}
    if crl and not client_ca:
        yield f"{section}.crl: needs {section}.client_ca, whose certificates it revokes"
    if tls.bind:
        for key in (f"{section}.cert", f"{section}.key"):
            if not files[key]:
                yield f"{key}: needed by {section}.bind"
    elif bool(tls.cert) != bool(tls.key):
        missing = f"{section}.key" if tls.cert else f"{section}.cert"
        yield f"{missing}: certificate and key go together"
    for key, file in files.items():
        if file and not Path(file).is_file() and not file.startswith("~"):
            yield f"{key}: there is no file {file}"
    if tls.bind and Path(tls.cert).is_file() and Path(tls.key).is_file() and (problem := pair_problem(tls.cert, tls.key)):
        yield f"{section}.cert: {problem} ({tls.cert}, {tls.key})"
    if tls.bind and Path(client_ca).is_file() and (problem := trust_problem(client_ca, "x509")):
        yield f"{section}.client_ca: {problem}"
    if tls.bind and Path(crl).is_file() and (problem := trust_problem(crl, "crl")):
        yield f"{section}.crl: {problem}"


def _check_http(config: Config) -> Iterator[str]:
    for text in config.http.trusted_proxies:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            yield f"http.trusted_proxies: {text!r} is neither an address nor a network"
    for origin in config.http.origins:
        if origin != "*" and (problem := _origin_problem(origin)):
            yield f"http.origins: {problem}"
    for origin in config.websocket.origins:
        if origin == "*":
            yield 'websocket.origins: "*" matches no page; leave the list empty for every page'
        elif problem := _origin_problem(origin):
            yield f"websocket.origins: {problem}"
    if config.auth.admin_token and (not config.auth.admin_token.isascii() or not config.auth.admin_token.isprintable()):
        yield "auth.admin_token: a header can carry printable ASCII only; make one with: openssl rand -hex 32"


def _origin_problem(origin: str) -> str | None:
    """Why no browser would ever send this as its `Origin` (RFC 6454, 6.2)."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return f"{origin!r} is no origin"
    if not parts.scheme or not parts.hostname or origin != f"{parts.scheme}://{parts.netloc}" or "@" in parts.netloc:
        return f'{origin!r} is no origin; it is "https://host", with the port where it has one'
    if origin != origin.lower() or not origin.isascii():
        return f"{origin!r} can never match; browsers write host names in small letters, umlauts as xn--…"
    if (parts.scheme, port) in (("https", 443), ("http", 80)):
        return f"{origin!r} can never match; browsers leave out a port that is the usual one"
    return None


def _check_jwt(jwt: JwtConfig) -> Iterator[str]:
    wrong = [name for name in jwt.algorithms if name not in ALGORITHMS]
    if wrong or not jwt.algorithms:
        yield f"auth.jwt.algorithms: {', '.join(map(repr, wrong)) or 'none'} can't be used; there are {', '.join(ALGORITHMS)}"
    if not jwt.key:
        yield 'auth.jwt.key: needed by auth.mode = "jwt"'
        return
    file = Path(jwt.key)
    if not file.is_file():
        yield f"auth.jwt.key: there is no file {jwt.key}"
        return
    secrets = [name for name in jwt.algorithms if name.startswith("HS")]
    with contextlib.suppress(OSError):
        if secrets and file.read_bytes().lstrip().startswith(b"-----BEGIN "):
            yield (
                f"auth.jwt.algorithms: {', '.join(secrets)} can't go with a key in PEM, which is public: whoever has it could "
                "make tokens"
            )


def _check_url(key: str, url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and url.isascii()
    except ValueError:  # the port
        fits = False
    if not fits or any(character.isspace() or not character.isprintable() for character in url):
        yield f'{key}: expected "http://host/path" or "https://host/path"'


def _check_auth(config: Config, listeners: dict[str, Address]) -> Iterator[str]:
    mode = config.auth.mode
    if mode == "jwt":
        yield from _check_jwt(config.auth.jwt)
    if mode == "http":
        if not config.auth.http.url:
            yield 'auth.http.url: needed by auth.mode = "http"'
        else:
            yield from _check_url("auth.http.url", config.auth.http.url)
        for name, value in config.auth.http.headers.items():
            if not _HEADER_NAME.fullmatch(name) or not value.isascii() or not value.isprintable():
                yield f"auth.http.headers: {name!r} can't be sent; names are letters, digits and -, values printable ASCII"
    if mode == "open":
        exposed = [f"{key} is {address}" for key, address in listeners.items() if not address.is_loopback]
        if exposed:
            yield (
                'auth.mode: "open" lets anybody in without a password, so every listener must be on loopback (127.0.0.1), but '
                + ", ".join(exposed)
            )
