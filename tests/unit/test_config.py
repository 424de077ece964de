"""The configuration: defaults, precedence, mistakes, the reference page."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
import trustme

from mqtt_im.config import KEYS, Address, Config, certificates, load, parse_bind
from mqtt_im.config.reference import render
from mqtt_im.protocol.errors import ConfigError
from tests.support.authority import revocations

ROOT = Path(__file__).parents[2]


def mistakes(text: str = "", *overrides: str, folder: Path, environment: dict[str, str] | None = None) -> list[str]:
    file = folder / "mqtt-im.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, overrides, environment or {})
    return caught.value.mistakes


def test_an_empty_file_is_a_server(tmp_path: Path) -> None:
    file = tmp_path / "empty.toml"
    file.write_text("")
    assert load(file, (), {}) == Config()


def test_the_documented_defaults() -> None:
    config = Config()
    assert config.data_dir == "var"
    assert (config.mqtt.bind, config.mqtt.prefix, config.mqtt.plain_topics) == ("127.0.0.1:1883", "im/v1", ())
    assert (config.websocket.bind, config.websocket.path, config.http.bind) == ("127.0.0.1:8083", "/mqtt", "127.0.0.1:8080")
    assert (config.store.url, config.store.synchronous, config.store.retention_days) == ("", "full", 0)
    assert (config.auth.mode, config.auth.admin_token) == ("accounts", "")
    limits = config.limits
    assert (limits.max_packet_bytes, limits.max_body_bytes, limits.max_connections) == (262_144, 65_536, 20_000)
    assert (limits.max_connections_per_user, limits.max_connections_per_address, limits.connect_timeout_s) == (16, 0, 10)
    assert (limits.max_inflight, limits.requests_per_second, limits.group_members, limits.max_page) == (64, 200, 5_000, 500)
    assert limits.forbidden_publishes_per_minute == 100
    assert (config.messaging.new_members_see_history, config.messaging.edit_window_s) == (False, 86_400)


def test_environment_goes_over_the_file_and_set_over_both(tmp_path: Path) -> None:
    file = tmp_path / "mqtt-im.toml"
    file.write_text("[limits]\nmax_page = 1\nmax_inflight = 1\ngroup_members = 1\n")
    environment = {"MQTT_IM__LIMITS__MAX_PAGE": "2", "MQTT_IM__LIMITS__MAX_INFLIGHT": "2", "OTHER": "x"}
    limits = load(file, ["limits.max_page=3"], environment).limits
    assert (limits.max_page, limits.max_inflight, limits.group_members) == (3, 2, 1)


def test_the_file_is_named_by_c_else_the_environment_else_lies_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(None, (), {}).data_dir == "var"
    for name in ("mqtt-im", "environment", "option"):
        (tmp_path / f"{name}.toml").write_text(f'data_dir = "{name}"\n')
    assert load(None, (), {}).data_dir == "mqtt-im"
    assert load(None, (), {"MQTT_IM_CONFIG": "environment.toml"}).data_dir == "environment"
    assert load("option.toml", (), {"MQTT_IM_CONFIG": "environment.toml"}).data_dir == "option"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mqtt.bind=0.0.0.0:1", Config().mqtt.__class__(bind="0.0.0.0:1")),
        ("mqtt.plain_topics=a/#, !a/b", Config().mqtt.__class__(plain_topics=("a/#", "!a/b"))),
        ('mqtt.plain_topics=["a/#"]', Config().mqtt.__class__(plain_topics=("a/#",))),
        ("mqtt.plain_topics=", Config().mqtt.__class__()),
    ],
)
def test_texts_and_lists_of_set(text: str, expected: object) -> None:
    assert load(None, [text], {}).mqtt == expected


def test_booleans_and_numbers_of_set() -> None:
    config = load(None, ["messaging.new_members_see_history=true", "limits.connect_timeout_s=0.5"], {})
    assert config.messaging.new_members_see_history is True
    assert config.limits.connect_timeout_s == 0.5


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("data_dri = 1", "data_dri: unknown key; the nearest known one is data_dir"),
        ("[mqtt]\nbnd = ''", "mqtt.bnd: unknown key; the nearest known one is mqtt.bind"),
        ("[limit]\nmax_page = 1", "limit: unknown key; the nearest known one is limits"),
        ("max_page = 1", "max_page: unknown key; the nearest known one is limits.max_page"),
        ("[limits]\nmax_page = 'x'", "limits.max_page: expected a whole number, got a text"),
        ("[limits]\nmax_page = true", "limits.max_page: expected a whole number, got true or false"),
        ("[limits]\nmax_page = 0", "limits.max_page: expected a whole number >= 1, got 0"),
        ("[limits]\nconnect_timeout_s = 0", "limits.connect_timeout_s: expected a number > 0.0, got 0"),
        ("[mqtt]\nplain_topics = ['a', 1]", "mqtt.plain_topics: expected a text, got a whole number in entry 2"),
        ("[mqtt]\nplain_topics = ['a#']", "mqtt.plain_topics: 'a#' is no topic filter"),
        (
            "[mqtt]\nplain_topics = ['im/v1/#']",
            "mqtt.plain_topics: 'im/v1/#' lies under mqtt.prefix, which is closed to plain MQTT",
        ),
        ("[store]\nsynchronous = 'off'", "store.synchronous: expected one of full, normal, got 'off'"),
        ("mqtt = 1", "mqtt: is a section, [mqtt], with keys of its own"),
        ("[limits]\nnope = 1", "limits.nope: unknown key; the nearest known one is limits.max_page"),
        (
            "[files]\nurl = 'ftp://host/folder'",
            'files.url: expected "s3://bucket/prefix" or "file:///folder", or nothing for data_dir/files',
        ),
        ("[files]\nurl = 'file:folder'", 'files.url: "file:///folder" is a whole path on this machine'),
        (
            "[websocket]\npath = '/mqtt?x'",
            "websocket.path: no client can ask for '/mqtt?x'; it is ASCII, without spaces, ?, # and %",
        ),
        (
            "[auth]\nmode = 'http'\n[auth.http]\nurl = 'http://x/y'\nheaders = {'a b' = 'c'}",
            "auth.http.headers: 'a b' can't be sent; names are letters, digits and -, values printable ASCII",
        ),
        ("[websocket]\npath = 'mqtt'", "websocket.path: must begin with \"/\", got 'mqtt'"),
        ("[http]\nbind = '127.0.0.1:1883'", "http.bind: 127.0.0.1:1883 is the address of mqtt.bind already"),
        ("[auth]\nmode = 'jwt'", 'auth.jwt.key: needed by auth.mode = "jwt"'),
        (
            "[auth]\nmode = 'open'\n[http]\nbind = '0.0.0.0:8080'",
            (
                'auth.mode: "open" lets anybody in without a password, so every listener must be on loopback (127.0.0.1), '
                "but http.bind is 0.0.0.0:8080"
            ),
        ),
        ("[mqtt.tls]\ncert = '/'", "mqtt.tls.key: certificate and key go together"),
        (
            "[store]\nurl = 'mysql://a:secret@b/c'",
            'store.url: expected "postgresql://user:password@host/database", or nothing for SQLite',
        ),
        ("[cluster]\nserver_reference = 'here'", "cluster.server_reference: expected \"host:port\", got 'here'"),
        ("data_dir = ''", "data_dir: must not be empty"),
        ("data_dir = '~/im'", 'data_dir: "~" is not expanded; write the whole path'),
        ("[mqtt.tls]\ncert = '~/c'\nkey = 'k'", 'mqtt.tls.cert: "~" is not expanded; write the whole path'),
        (
            "mqtt.bind = ''\nwebsocket.bind = ''\nhttp.bind = ''",
            "mqtt.bind: every listener is switched off, so nobody could connect",
        ),
        ("[http]\nbind = '0.0.0.0:1883'", "http.bind: 0.0.0.0:1883 and 127.0.0.1:1883, the address of mqtt.bind, overlap"),
        ("[http]\nbind = '[::]:8083'", "http.bind: [::]:8083 and 127.0.0.1:8083, the address of websocket.bind, overlap"),
        ("[http]\nbind = 'localhost:1883'", "http.bind: localhost:1883 and 127.0.0.1:1883, the address of mqtt.bind, overlap"),
        (
            "[limits]\nmax_body_bytes = 300000",
            "limits.max_body_bytes: 300000 does not fit into limits.max_packet_bytes, 262144, which holds other fields too",
        ),
        ("[websocket]\norigins = ['*']", 'websocket.origins: "*" matches no page; leave the list empty for every page'),
        (
            "[websocket]\norigins = ['https://a.example/']",
            "websocket.origins: 'https://a.example/' is no origin; it is \"https://host\", with the port where it has one",
        ),
        (
            "[websocket]\norigins = ['a.example']",
            "websocket.origins: 'a.example' is no origin; it is \"https://host\", with the port where it has one",
        ),
        (
            "[http]\norigins = ['https://A.example']",
            "http.origins: 'https://A.example' can never match; browsers write host names in small letters, umlauts as xn--…",
        ),
        (
            "[websocket]\norigins = ['https://a.example:443']",
            "websocket.origins: 'https://a.example:443' can never match; browsers leave out a port that is the usual one",
        ),
    ],
)
def test_each_mistake_is_one_line(text: str, mistake: str, tmp_path: Path) -> None:
    assert mistake in mistakes(text, folder=tmp_path)


@pytest.mark.parametrize("prefix", ["", "/im", "im/", "im//v1", "im/+", "im/#", "$im", "a" * 129])
def test_bad_prefixes(prefix: str, tmp_path: Path) -> None:
    assert [line.partition(":")[0] for line in mistakes(f"[mqtt]\nprefix = '{prefix}'", folder=tmp_path)] == ["mqtt.prefix"]


def test_all_mistakes_are_told_at_once_with_where_they_came_from(tmp_path: Path) -> None:
    found = mistakes(
        "[limits]\nmax_page = 0\n",
        "log.level=loud",
        "nonsense",
        folder=tmp_path,
        environment={"MQTT_IM__LIMITS__DRAIN_S": "soon", "MQTT_IM__AAAA": "1"},
    )
    assert found == [
        "limits.max_page: expected a whole number >= 1, got 0",
        "aaaa: unknown key; docs/configuration.md lists them all (from MQTT_IM__AAAA)",
        "limits.drain_s: expected a number, got 'soon' (from MQTT_IM__LIMITS__DRAIN_S)",
        "log.level: expected one of debug, info, warning, error, got 'loud' (from --set)",
        "nonsense: --set needs section.key=value",
    ]


def test_a_file_that_is_missing_or_no_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "none.toml", (), {})
    assert caught.value.mistakes == [f"{tmp_path}/none.toml: can't be read: No such file or directory"]
    assert "is not TOML" in mistakes("x = = 1", folder=tmp_path)[0]
    assert "is not TOML" in mistakes("x = " + "9" * 5_000, folder=tmp_path)[0]


def test_tls_needs_its_files(tmp_path: Path) -> None:
    assert mistakes("[mqtt.tls]\nbind = '127.0.0.1:8883'", folder=tmp_path) == [
        "mqtt.tls.cert: needed by mqtt.tls.bind",
        "mqtt.tls.key: needed by mqtt.tls.bind",
    ]


def test_certificate_and_key_belong_together(tmp_path: Path) -> None:
    authority = trustme.CA()
    one, other = authority.issue_cert("localhost"), authority.issue_cert("localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    one.cert_chain_pems[0].write_to_path(cert)
    text = f"[mqtt.tls]\nbind = '127.0.0.1:8883'\ncert = '{cert}'\nkey = '{key}'"
    for wrong in (other, authority.issue_cert("localhost", key_type=trustme.KeyType.RSA)):
        wrong.private_key_pem.write_to_path(key)
        assert mistakes(text, folder=tmp_path) == [f"mqtt.tls.cert: certificate and key do not belong together ({cert}, {key})"]
    key.write_text("nonsense")
    assert "is no PEM file that can be used" in mistakes(text, folder=tmp_path)[0]
    one.private_key_pem.write_to_path(key)
    load(None, ["mqtt.tls.bind=127.0.0.1:8883", f"mqtt.tls.cert={cert}", f"mqtt.tls.key={key}"], {})


def test_what_clients_are_trusted_by_must_be_of_use(tmp_path: Path) -> None:
    authority = trustme.CA()
    cert, key, ca, crl = (tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem", "crl.pem"))
    one = authority.issue_cert("localhost")
    one.cert_chain_pems[0].write_to_path(cert)
    one.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    crl.write_bytes(revocations(authority))
    text = f"[mqtt.tls]\nbind = '127.0.0.1:8883'\ncert = '{cert}'\nkey = '{key}'\nclient_ca = '{ca}'\ncrl = '{crl}'"
    files = [f"mqtt.tls.{name}={file}" for name, file in (("cert", cert), ("key", key), ("client_ca", ca), ("crl", crl))]
    load(None, ["mqtt.tls.bind=127.0.0.1:8883", *files], {})
    crl.write_text(ca.read_text())
    assert mistakes(text, folder=tmp_path) == [f"mqtt.tls.crl: there is no revocation list in {crl}"]
    ca.write_text("nonsense")
    assert [line.partition(":")[0] for line in mistakes(text, folder=tmp_path)] == ["mqtt.tls.client_ca", "mqtt.tls.crl"]


def test_how_long_certificates_and_revocations_are_good(tmp_path: Path) -> None:
    authority = trustme.CA()
    end = datetime.datetime(2061, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
    for last in (end, end.replace(year=2049)):  # the two forms of a time in RFC 5280
        authority.issue_cert("localhost", not_after=last).cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
        assert certificates.certificate_ends(str(tmp_path / "cert.pem")) == [last]
    (tmp_path / "crl.pem").write_bytes(revocations(authority))
    (ends,) = certificates.revocations_end(str(tmp_path / "crl.pem"))
    assert datetime.timedelta(hours=23) < ends - datetime.datetime.now(datetime.UTC) <= datetime.timedelta(days=1)
    with pytest.raises(ValueError, match="there is no X509 CRL in it"):
        certificates.revocations_end(str(tmp_path / "cert.pem"))
    for broken in ("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\nMAA="):
        (tmp_path / "cert.pem").write_text(broken)
        with pytest.raises(ValueError, match="an entry"):
            certificates.certificate_ends(str(tmp_path / "cert.pem"))


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("127.0.0.1:1", "127.0.0.1:1", True),
        ("127.0.0.1:1", "127.0.0.1:2", False),
        ("127.0.0.1:1", "127.0.0.2:1", False),
        ("0.0.0.0:1", "192.0.2.1:1", True),
        ("0.0.0.0:1", "[::1]:1", False),
        ("[::]:1", "192.0.2.1:1", True),
        ("localhost:1", "127.0.0.1:1", True),
    ],
)
def test_addresses_that_overlap(one: str, other: str, overlap: bool) -> None:
    first, second = parse_bind(one), parse_bind(other)
    assert first is not None and second is not None
    assert first.overlaps(second) == second.overlaps(first) == overlap


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", None),
        ("127.0.0.1:0", Address("127.0.0.1", 0)),
        ("[::1]:1883", Address("::1", 1883)),
        ("localhost:65535", Address("localhost", 65535)),
    ],
)
def test_addresses(text: str, address: Address | None) -> None:
    assert parse_bind(text) == address
    assert text == ("" if address is None else str(address))


@pytest.mark.parametrize(
    "text",
    ["1883", "host", "host:", "host:x", "host:65536", ":1883", "::1:1883", "[x]:1", "a b:1", "host:-1", "host:" + "9" * 5_000],
)
def test_bad_addresses(text: str) -> None:
    with pytest.raises(ValueError):
        parse_bind(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("example.org", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert Address(host, 1).is_loopback is loopback


def test_every_key_is_described_and_its_default_is_valid() -> None:
    assert all(key.description.endswith(".") for key in KEYS.values())
    assert load(None, [], {}) == Config()


def test_the_reference_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == render(), "run `make docs`"


def test_the_quickstart_file_is_right() -> None:
    assert load(ROOT / "config" / "quickstart.toml", (), {}).auth.mode == "open"


def test_the_file_of_a_node_lacks_nothing_but_the_database() -> None:
    environment = {"MQTT_IM__STORE__URL": "postgresql://im:secret@db1,db2/im", "MQTT_IM__CLUSTER__NODE": "n1"}
    config = load(ROOT / "config" / "cluster" / "node.toml", (), environment)
    assert (config.cluster.node, config.store.url) == ("n1", environment["MQTT_IM__STORE__URL"])
    assert config.mqtt.proxy_protocol and config.http.bind.endswith(":8080")


def test_the_production_file_lacks_nothing_but_the_certificate() -> None:
    with pytest.raises(ConfigError) as caught:
        load(ROOT / "config" / "production.toml", (), {})
    assert caught.value.mistakes == [
        "mqtt.tls.cert: there is no file /etc/mqtt-im/fullchain.pem",
        "mqtt.tls.key: there is no file /etc/mqtt-im/privkey.pem",
    ]


def test_plugins_are_a_table_of_tables(tmp_path: Path) -> None:
    file = tmp_path / "mqtt-im.toml"
    file.write_text('[mqtt.plugins."a.B"]\nnumber = 1\n[mqtt.plugins."c.D"]\n')
    assert load(file, (), {}).mqtt.plugins == {"a.B": {"number": 1}, "c.D": {}}
    assert load(file, ['mqtt.plugins={"e.F" = {list = [1]}}'], {}).mqtt.plugins == {"e.F": {"list": [1]}}
    assert mistakes("[mqtt]\nplugins = 3\n", folder=tmp_path) == ["mqtt.plugins: expected a table, got a whole number"]
    assert mistakes('[mqtt.plugins]\n"a.B" = 3\n', folder=tmp_path) == [
        "mqtt.plugins: expected a table for each name, got a whole number"
    ]
    assert mistakes("", "mqtt.plugins={", folder=tmp_path) == ["mqtt.plugins: expected a table, got '{' (from --set)"]
    [mistake] = mistakes("[mqtt.plugins]\nB = {}\n", folder=tmp_path)
    assert mistake.startswith("mqtt.plugins: 'B' is no dotted name of a class")
