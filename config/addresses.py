"""Checks of network addresses: host names, `host:port`, URLs and browser origins. Pure, no name is looked up.

Callers: the sections in schema.py, upstreams.py and sources.py. A check raises Fault with what is expected.
"""

import re
from ipaddress import ip_address
from urllib.parse import SplitResult, unquote, urlsplit

from config.errors import Fault

# RFC 1123 §2.1 and RFC 1035 §2.3.4; underscores are in neither, but Docker gives such names to services.
_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\.?$){_LABEL}(\.{_LABEL})*\.?")
# RFC 3986 §2. urlsplit drops tabs and line breaks unseen, so other characters are refused before it.
_URL_CHARACTERS = re.compile(r"([A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
_ABSOLUTE_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:.")
_HOST_DATABASE = re.compile(r"(/[0-9]{0,4})?")
_SOCKET_DATABASE = re.compile(r"(db=[0-9]{1,4})?")
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
_BIND = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*:[^\[\]]*)\]|(?P<host>[^\[\]:]+)):(?P<port>[0-9]{1,5})")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")

_BIND_EXPECTED = "must be host:port with a port from 1 to 65535, an IPv6 address in brackets"


def split_bind(bind: str) -> tuple[str, int]:
    """Host (IPv6 without its brackets) and port of `host:port`."""
    match = _BIND.fullmatch(bind)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise Fault(_BIND_EXPECTED)
    host = match["ipv6"] or match["host"]
    if not (_is_ip(host) if match["ipv6"] else _is_host(host)):
        raise Fault(_BIND_EXPECTED)
    return host, int(match["port"])


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by its spelling: 127.0.0.0/8, ::1 or localhost."""
    return ip_address(host).is_loopback if _is_ip(host) else host.lower() == "localhost"


def check_bind(bind: str) -> str:
    split_bind(bind)
    return bind


def check_loopback_bind(bind: str) -> str:
    host, _ = split_bind(bind)
    if not is_loopback(host):
        raise Fault("must be an address on loopback, such as 127.0.0.1:5003")
    return bind


def check_base_url(url: str) -> str:
    """The URL without trailing slashes, so that a path can be joined to it."""
    if _split_url(url).query or "?" in url:
        raise Fault("must have no query")
    return url.rstrip("/")


def check_token_url(url: str) -> str:
    """RFC 6749 §3.2: credentials travel there, so TLS is a must; loopback stays open for trials and tests."""
    parts = _split_url(url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise Fault("must start with https://, or be on a loopback host")
    return url


def check_redis_url(url: str) -> str:
    """`redis://`, `rediss://` (TLS) or `unix://`; a password with odd characters stands percent-encoded in it.

    No query but the database of a Unix socket, as redis-py would take `ssl_cert_reqs=none` from there.
    """
    expected = Fault(
        "must be a URL such as rediss://:password@redis.example.com:6379/0, odd characters in the password "
        "percent-encoded (/ is %2F)"
    )
    parts = _parts(url, expected)
    scheme, host = url.partition("://")[0], parts.hostname or ""  # redis-py knows schemes in lower case only
    if scheme == "unix":
        # With two slashes the first folder is a host, which redis-py leaves out.
        is_whole = not host and len(parts.path) > 1 and _SOCKET_DATABASE.fullmatch(parts.query) is not None
    else:
        is_whole = _is_host(host) and _HOST_DATABASE.fullmatch(parts.path) is not None and "?" not in url
    if scheme not in ("redis", "rediss", "unix") or not is_whole or "#" in url:
        raise expected
    return url


def check_http_proxy(url: str) -> str:
    """`http://[user:password@]host:port` of a forward proxy, odd characters in user and password percent-encoded.

    The port must be named: without one curl takes 1080, and most others 80.
    """
    scheme, slashes, _ = url.partition("://")
    if slashes and scheme.lower() != "http":
        raise Fault("must start with http://: a proxy that is itself reached by TLS or by SOCKS is not supported")
    expected = Fault(
        "must be a URL such as http://user:password@proxy.example.com:3128, odd characters in user and password "
        "percent-encoded (@ is %40)"
    )
    parts = _parts(url, expected)
    host = parts.hostname or ""
    if parts.scheme != "http" or not _is_host(host) or parts.port is None:
        raise expected
    # Brackets are for IPv6 alone; a second @ is read in two ways, by urlsplit and by httpx2.
    if ("[" in url) != (":" in host) or parts.netloc.count("@") > 1:
        raise expected
    if parts.path not in ("", "/") or "?" in url or "#" in url:
        raise expected
    _check_basic(parts.username or "", parts.password or "")
    return url


def check_absolute_uri(uri: str) -> str:
    """RFC 3986 §4.3, as RFC 8707 §2 wants a resource: `urn:` and the like count too."""
    if not _ABSOLUTE_URI.match(uri) or not _URL_CHARACTERS.fullmatch(uri) or "#" in uri:
        raise Fault("must be an absolute URI without a fragment, such as https://api.example.com")
    return uri


def check_origin(origin: str) -> str:
    """The origin in lower case, as browsers send it (RFC 6454 §6.2), or `*`."""
    if origin != "*" and not _ORIGIN.fullmatch(origin.lower()):
        raise Fault("must be scheme://host or scheme://host:port without a path, or *")
    return origin.lower()


def _split_url(url: str) -> SplitResult:
    expected = Fault("must be a URL such as https://llm.example.com/v1")
    parts = _parts(url, expected)
    if parts.scheme not in ("http", "https") or not _is_host(parts.hostname or ""):
        raise expected
    if "@" in parts.netloc:
        raise Fault("must hold no user name or password")
    if "#" in url:
        raise Fault("must have no fragment")
    return parts


def _parts(url: str, expected: Fault) -> SplitResult:
    """The parts of a URL of good characters with a good port or none; else `expected` is raised."""
    if not _URL_CHARACTERS.fullmatch(url):
        raise expected
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # Not chained: the text of urlsplit repeats the value.
        raise expected from None
    if port == 0:
        raise expected
    return parts


def _check_basic(user: str, password: str) -> None:
    """RFC 7617 §2: what cannot be sent, in percent-encoded names and passwords; UTF-8 is what is sent."""
    try:
        user, password = unquote(user, errors="strict"), unquote(password, errors="strict")
    except UnicodeDecodeError:
        # Not chained: it carries the bytes.
        raise Fault("must have a user and a password in UTF-8") from None
    if ":" in user or _CONTROL_CHARACTER.search(user + password):
        raise Fault("must have no control character in user or password, and no colon in the user (RFC 7617)")


def _is_host(host: str) -> bool:
    # Digits and dots alone are an IPv4 address or a slip: 127.1 means different hosts to different resolvers.
    return _is_ip(host) or (_HOST_NAME.fullmatch(host) is not None and not re.fullmatch(r"[0-9.]+", host))


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
