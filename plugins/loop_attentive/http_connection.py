"""What an Airflow connection of type http says: where it leads, however that is spelt, and how to get there.

Its extra may hold headers, as the HTTP provider has it, and: ``proxy`` (a URL), ``trust_env`` (true: take the proxy
from the environment), ``verify`` (path of a CA bundle), ``plain_http`` (true: plain http to other hosts than this one,
for a stand-in on a private network).
"""

import ipaddress
import re
import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from loop_attentive.errors import NeedsMending

OUR_EXTRAS = frozenset({"plain_http", "trust_env", "proxy", "proxies", "verify", "verify_ssl"})
PROVIDER_EXTRAS = frozenset(
    {"timeout", "allow_redirects", "max_redirects", "check_response", "stream", "cert", "headers"}
)


def url(connection: Any, *, such_as: str, carries: str, query: bool = False) -> SplitResult:
    """Where a connection leads: scheme, host, port and path. Raises NeedsMending for what is no such URL.

    such_as: a URL as it should be. carries: what plain http would show to others. query: it may have one.
    """
    name, host = connection.conn_id, (connection.host or "").strip()
    if host.count(":") > 1 and "://" not in host and not host.startswith("["):
        host = f"[{host}]"  # an address of IPv6, as it stands in a connection that was given as a URI
    if "://" not in host:
        host = f"{connection.schema or _default_scheme(host)}://{host}"
    try:
        parts = urlsplit(host)
        hostname, port = parts.hostname, parts.port or connection.port
    except ValueError:
        hostname = None
    if not hostname or parts.scheme not in ("http", "https") or parts.username or (parts.query and not query):
        raise NeedsMending(f"The host of connection {name} is no URL that can be used: give one such as {such_as}.")
    if (
        parts.scheme == "http"
        and not _is_loopback(hostname)
        and not _is_true(connection.extra_dejson.get("plain_http"))
    ):
        raise NeedsMending(f"Connection {name} would send {carries} over plain http: give an https URL.")
    netloc = f"[{hostname}]" if ":" in hostname else hostname
    return parts._replace(netloc=f"{netloc}:{port}" if port else netloc)


def api_key(connection: Any, *, absent: str) -> str:
    """The password of a connection. Raises NeedsMending for what is no key that a header can hold.

    absent: what to say where there is none.
    """
    if not connection.password:
        raise NeedsMending(f"Connection {connection.conn_id} has no password: {absent}.")
    key = str(connection.password).strip()
    if not re.fullmatch(r"[!-~]+", key):
        raise NeedsMending(
            f"The password of connection {connection.conn_id} is no API key: it holds spaces, or other than ASCII."
        )
    return key


@dataclass(frozen=True)
class Way:
    """How to get there. headers: of the connection's extra, but none that are ours to set."""

    headers: dict[str, str] = field(default_factory=dict, repr=False)
    ssl_context: ssl.SSLContext | bool = True
    proxy: str | None = field(default=None, repr=False)


def way(connection: Any, to: SplitResult) -> Way:
    """How a connection's extra has its requests go there. Raises NeedsMending for what cannot be used."""
    name, extra = connection.conn_id, connection.extra_dejson
    proxy = _proxy(f"Connection {name}: its extra's proxy", extra.get("proxy"))
    if proxy is None and _is_true(extra.get("trust_env")):
        proxy = _proxy_of_environment(to)
    return Way(
        headers=_own_headers(extra),
        ssl_context=_ssl_context(name, extra.get("verify", extra.get("verify_ssl", True))),
        proxy=proxy,
    )


def _is_true(value: Any) -> bool:
    """In a connection that is given as a URI every value is text."""
    return str(value).lower() == "true"


def _default_scheme(host: str) -> str:
    """A bare host is spoken to in https, but for this machine, where the provider's http is meant."""
    name = re.match(r"\[([^]]*)\]|[^/:]*", host)
    return "http" if name and _is_loopback(name[1] or name[0]) else "https"


def _is_loopback(hostname: str) -> bool:
    try:
        return ipaddress.ip_address(hostname).is_loopback
    except ValueError:
        return hostname.lower() == "localhost"


def _proxy(whose: str, proxy: Any) -> str | None:
    if proxy is None or (isinstance(proxy, str) and re.match(r"(?i)https?://.", proxy)):
        return proxy
    raise NeedsMending(f"{whose} is no URL such as http://proxy.example.com:3128.")


def _proxy_of_environment(to: SplitResult) -> str | None:
    """By HTTPS_PROXY and NO_PROXY. aiohttp's own trust_env reads a netrc too, with the log-ins of other programs."""
    assert to.hostname, "url() yields none without a host"
    if proxy_bypass(to.hostname):
        return None
    return _proxy(f"The environment's {to.scheme}_proxy", getproxies().get(to.scheme))


def _own_headers(extra: dict[str, Any]) -> dict[str, str]:
    named = {**extra, **extra["headers"]} if isinstance(extra.get("headers"), dict) else extra
    ours = {"authorization", "content-type", "accept-encoding", "content-length", "host"}
    ours |= {"connection", "content-encoding", "expect", "transfer-encoding"}  # how a body travels
    return {
        key: value
        for key, value in named.items()
        if isinstance(value, str) and key not in OUR_EXTRAS | PROVIDER_EXTRAS and key.lower() not in ours
    }


def _ssl_context(name: str, verify: Any) -> ssl.SSLContext | bool:
    if verify is None or _is_true(verify):
        return True
    if not isinstance(verify, str) or verify.lower() == "false":
        raise NeedsMending(f"Connection {name} switches the check of certificates off: remove verify from its extra.")
    try:
        return ssl.create_default_context(cafile=verify)
    except OSError:
        raise NeedsMending(f"Connection {name}: its extra's verify names no readable CA bundle.") from None
