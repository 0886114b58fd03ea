"""Keeps web pages away from routes that ask for no key because the server is bound to loopback.

A page may let its own name lead to 127.0.0.1 (DNS rebinding): the browser then takes us for the page's own server and
lets it read our answers, but sends that name as `Host`. What people and programs on this machine ask for is localhost
or an address. `app` puts it before the operations' routes.
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

from flask import Blueprint, request

from proxy.errors import RouteNotFound


def answer_to_own_host_only(blueprint: Blueprint) -> None:
    """Let in only requests whose `Host` is localhost or an IP address."""
    blueprint.before_request(_check_host)


def _check_host() -> None:
    host = request.environ.get("HTTP_HOST")
    if host is not None and not is_own_host(host):  # HTTP/1.0 needs none, and browsers always send it
        message = "This route is here under localhost or an IP address, not under another name."
        raise RouteNotFound(message, cause="Host is neither localhost nor an IP address")


def is_own_host(host: str) -> bool:
    """Whether a `Host` field, its port aside, is `localhost` or an IPv4 or IPv6 address: no name that DNS decides."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or bool(ip_address(name))
    except ValueError:
        return False
