"""Who may log in."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field


class JwtConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Logins with tokens that somebody else has signed; see docs/http.md."""

    key: Annotated[
        str,
        Meta(description="File with the key: a secret, a public key in PEM, or a set of keys (JWKS); read again on SIGHUP."),
    ] = ""
    algorithms: Annotated[
        tuple[str, ...], Meta(description="Algorithms that are accepted, of HS, RS, PS, ES with 256, 384, 512, and EdDSA.")
    ] = ("RS256", "ES256", "EdDSA")
    user_claim: Annotated[str, Meta(min_length=1, description="The claim that names the user.")] = "sub"
    issuer: Annotated[str, Meta(description="What `iss` must be; empty: not looked at.")] = ""
    audience: Annotated[str, Meta(description="What `aud` must be, or hold; empty: not looked at.")] = ""
    require_exp: Annotated[bool, Meta(description="A token without an end (`exp`) is refused.")] = True
    leeway_s: Annotated[float, Meta(ge=0, le=3600, description="Seconds by which clocks may differ.")] = 0


class HttpLoginConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Logins that another system is asked about; see docs/http.md."""

    url: Annotated[str, Meta(description="Where each login is sent with POST, `http://…` or `https://…`.")] = ""
    timeout_s: Annotated[float, Meta(gt=0, le=60, description="Seconds in which the answer must have come.")] = 5
    headers: Annotated[
        dict[str, str], Meta(description='Headers that are sent along, such as `{ Authorization = "Bearer …" }`.')
    ] = field(default_factory=dict)
    cache_s: Annotated[
        float, Meta(ge=0, le=86_400, description="Seconds for which a login that was allowed is not asked about again; 0: never.")
    ] = 0


class AuthConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may log in."""

    mode: Annotated[
        Literal["accounts", "open", "jwt", "http"],
        Meta(
            description="`accounts`: name and password, see `mqtt-im user`. `open`: any name, no password, refused unless every "
            "listener is on loopback. `jwt`: tokens that somebody else has signed. `http`: another system is asked."
        ),
    ] = "accounts"
    admin_token: Annotated[
        str,
        Meta(description="Bearer token that may do everything over the HTTP API, its admin part included; empty: off."),
    ] = ""
    registration: Annotated[bool, Meta(description="Anybody may make an account over HTTP (`POST /api/v1/register`).")] = False
    registrations_per_hour: Annotated[int, Meta(ge=1, description="Accounts that may be made from one address in an hour.")] = 20
    jwt: JwtConfig = field(default_factory=JwtConfig)
    http: HttpLoginConfig = field(default_factory=HttpLoginConfig)
    session_days: Annotated[
        int, Meta(ge=0, le=36_500, description="Days for which the token of a login over HTTP is good; 0: until its logout.")
    ] = 30
    credential_cache_s: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="Seconds for which a password that was right, or wrong, is not hashed again; a change ends that at once.",
        ),
    ] = 300
