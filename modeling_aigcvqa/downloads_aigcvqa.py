"""Fetch a clip from an http(s) address, with a limit on its size and, for public services, on the hosts."""

import http.client
import ipaddress
import socket
import time
import urllib.request
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 30.0  # for a connection, and for a complete fetch from a listed host


def download(url: str, max_bytes: int, hosts: Sequence[str] | None = None) -> bytes:
    """The body at an http(s) address.

    Args:
        url: the address.
        max_bytes: a larger body is refused.
        hosts: None for any address. Otherwise only https addresses on these hosts are fetched, without port and user.
            Redirects are not followed. All IP addresses of the host must be public, so that a listed name cannot lead
            into the operator's network.

    Raises:
        ValueError: if the address is not allowed, cannot be fetched or holds too much; names the address.
    """
    try:
        if hosts is not None:
            return _download_from_host(url, max_bytes, hosts)
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            body = response.read(max_bytes + 1)
    except (OSError, http.client.HTTPException) as error:
        raise ValueError(f"{url!r} could not be fetched ({error}); check the address and the network.") from error
    _check_size(url, len(body), max_bytes)
    return body


def _check_size(url: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise ValueError(f"{url!r} holds more than the {max_bytes} bytes allowed; shorten or compress the clip.")


def _download_from_host(url: str, max_bytes: int, hosts: Sequence[str]) -> bytes:
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if not hosts:
        raise ValueError(f"the address {url!r} is not fetched: no host is allowed here. Send the video itself.")
    if parts.scheme != "https" or host not in hosts or parts.netloc.lower() != host:
        raise ValueError(
            f"the address {url!r} is not allowed: expected https://HOST/... with HOST one of {list(hosts)}, without "
            "port and user."
        )
    connection = CheckedConnection(host, timeout=TIMEOUT_S)
    try:
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        response = connection.getresponse()
        if response.status != 200:
            reason = "redirects are not followed" if response.status // 100 == 3 else response.reason
            raise ValueError(f"the address {url!r} answered {response.status} ({reason}).")
        return _read_body(url, response, max_bytes)
    finally:
        connection.close()


def _read_body(url: str, response: Any, max_bytes: int) -> bytes:
    """The complete body. A host that sends it too slowly is cut off after `TIMEOUT_S`."""
    body, deadline = bytearray(), time.monotonic() + TIMEOUT_S
    while chunk := response.read1(1 << 16):
        body += chunk
        _check_size(url, len(body), max_bytes)
        if time.monotonic() > deadline:
            raise OSError(f"not complete after {TIMEOUT_S:.0f} s")
    return bytes(body)


class CheckedConnection(http.client.HTTPSConnection):
    """HTTPS to an IP address that was checked. The name is not resolved again, so it cannot change after the check."""

    def connect(self) -> None:
        plain = socket.create_connection((public_address(self.host, self.port), self.port), self.timeout)
        self.sock = self._context.wrap_socket(plain, server_hostname=self.host)


def public_address(host: str, port: int) -> str:
    """An IP address of `host`. Raises ValueError if any IP address of the host is not public."""
    found = [entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for text in found:
        address = ipaddress.ip_address(text)
        address = getattr(address, "ipv4_mapped", None) or address
        if not address.is_global or address.is_multicast:
            raise ValueError(f"the host {host!r} is not allowed: its address {text} is not public.")
    return found[0]
