"""The hosts that requests may name, against DNS rebinding."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from flask import Flask, request
from werkzeug.exceptions import MisdirectedRequest

from service.settings import Settings

PUBLIC = "health"  # the blueprint that any host may name: probes use the address of a pod


def register(app: Flask, settings: Settings) -> None:
    """Refuse an app's requests whose Host is not a name of this machine or in ALLOWED_HOSTS (421).

    A page may point its own host name to 127.0.0.1 and then read the API as if it were of the same origin; its requests
    still carry its host name. An API on another address than loopback has names that it cannot know: there, without
    ALLOWED_HOSTS, all are allowed.
    """
    listed = settings.hosts
    on_loopback = _is_loopback(_address(settings.host))
    if "*" in listed or not (on_loopback or listed):
        return
    allowed = {"localhost", settings.host.lower(), socket.gethostname().lower(), *listed}

    @app.before_request
    def check_host() -> None:
        header = request.headers.get("Host")
        if header is None or request.blueprint == PUBLIC:  # browsers always send one
            return
        name = _name(header)
        if name not in allowed and not (_is_loopback(name) if on_loopback else _is_address(name)):
            raise MisdirectedRequest(
                f"The host {header!r} is not allowed: use localhost, 127.0.0.1 or another name of this machine, or add "
                "it to the setting ALLOWED_HOSTS."
            )


def _name(header: str) -> str:
    """Return the name in a Host header, without its port, the brackets of an IPv6 address and a final dot."""
    name, _, port = header.rpartition(":")
    host = name if name and port.isdigit() else header
    return host.removeprefix("[").removesuffix("]").removesuffix(".").lower()


def _address(host: str) -> str:
    """Return the address that a server listens on, or an empty string if the host has none."""
    try:
        return str(socket.getaddrinfo(host or None, None, flags=socket.AI_PASSIVE)[0][4][0])
    except OSError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return _is_address(name) and ip_address(name).is_loopback
