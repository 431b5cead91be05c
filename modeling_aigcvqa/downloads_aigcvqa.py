"""Fetch a clip from an http(s) address: one deadline for all of it, limits on its size and, for services, on hosts."""

import http.client
import ipaddress
import queue
import socket
import threading
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit, urlunsplit

from .frames_aigcvqa import seconds_left

SILENCE_S = 30.0  # longest wait for a single answer of the network
HOST_S = 30.0  # for a complete fetch from a listed host
ANY_S = 900.0  # for a complete fetch from any address
MAX_REDIRECTS = 5
ALLOWED_IN_PATHS = "/%:@!$&'()*+,;=~-._"  # everything else is escaped


def download(url: str, max_bytes: int, hosts: Sequence[str] | None = None, seconds: float | None = None) -> bytes:
    """The body at an http(s) address.

    Args:
        url: the address.
        max_bytes: a larger body is refused.
        hosts: None for any address; redirects to other http(s) addresses are then followed, but not from https to http
            and not from a public host into a private network. Otherwise only https addresses on these hosts are
            fetched, without port and user, and redirects are not followed. All IP addresses of the host must be public,
            so that a listed name cannot lead into the operator's network.
        seconds: time for all of it, from the lookup of the name to the last byte; None for `HOST_S` or `ANY_S`.

    Raises:
        ValueError: if the address is not allowed, cannot be fetched in time, or holds too much or less than the server
            announced; names the address, without a password.
    """
    shown = _without_user(url)
    try:
        if hosts is None:
            return _within(seconds or ANY_S, lambda keep: _fetch(_checked_url(url), max_bytes, keep))
        parts = _checked_host(url, hosts)
        return _within(seconds or HOST_S, lambda keep: _fetch_from_host(parts, max_bytes, keep))
    except (OSError, http.client.HTTPException) as error:
        reason = f"the server answered {error.code} {error.reason}" if isinstance(error, HTTPError) else error
        raise ValueError(f"{shown!r} could not be fetched ({reason}); check the address and the network.") from error
    except ValueError as error:
        raise ValueError(f"the address {shown!r} is not fetched: {error}") from error


def _within(seconds: float, fetch: Callable[[Callable[[Any], None]], bytes]) -> bytes:
    """The result of `fetch`, which runs in a thread, so that no phase of it can outlast the deadline.

    `fetch` is called with a function that takes the open response: it is shut down if time runs out.
    """
    left = seconds_left()
    seconds = seconds if left is None else min(seconds, left)
    outcome: queue.Queue = queue.Queue()
    opened: list[Any] = []

    def run() -> None:
        try:
            outcome.put((fetch(opened.append), None))
        except BaseException as error:
            outcome.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        body, error = outcome.get(timeout=seconds)
    except queue.Empty:
        for response in opened:
            _shut_down(response)
        raise TimeoutError(f"not complete after {seconds:.3g} s") from None
    if error is not None:
        raise error
    return body


def _shut_down(response: Any) -> None:
    """End the connection under a response, so that the thread that reads it ends too."""
    raw = getattr(getattr(response, "fp", None), "raw", None)
    sock = getattr(raw, "_sock", None)
    if sock is not None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


def _fetch(url: str, max_bytes: int, keep: Callable[[Any], None]) -> bytes:
    """From any address, with the proxies of the environment."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        _CheckedRedirects(_is_public(urlsplit(url).hostname)),
    ):
        opener.add_handler(handler)
    with opener.open(url, timeout=SILENCE_S) as response:
        keep(response)
        return _body(response, max_bytes)


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http(s) addresses alone, and checks where they lead."""

    max_redirections = MAX_REDIRECTS
    max_repeats = 2

    def __init__(self, from_public: bool | None):
        self.from_public = from_public

    def redirect_request(self, request, file, code, message, headers, url):
        target = urlsplit(_checked_url(url))
        if request.type == "https" and target.scheme != "https":
            raise ValueError(f"it redirects from https to {target.scheme}.")
        if self.from_public and _is_public(target.hostname) is False:
            raise ValueError(f"it redirects from a public host to {target.hostname!r} in a private network.")
        return super().redirect_request(request, file, code, message, headers, urlunsplit(target))


def _fetch_from_host(parts: Any, max_bytes: int, keep: Callable[[Any], None]) -> bytes:
    """From a listed host, whose IP addresses are checked."""
    connection = CheckedConnection(parts.hostname.lower(), timeout=SILENCE_S)
    try:
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        response = connection.getresponse()
        keep(response)
        if response.status // 100 == 3:
            raise ValueError(f"it answered {response.status} (redirects are not followed).")
        return _body(response, max_bytes)
    finally:
        connection.close()


def _body(response: Any, max_bytes: int) -> bytes:
    """The complete body of a response."""
    if response.status != 200:
        raise ValueError(f"it answered {response.status} ({response.reason}), which is not a file.")
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise ValueError(f"the server compresses it ({encoding}) although that was not asked for.")
    declared = response.headers.get("Content-Length", "")
    length = int(declared) if declared.isascii() and declared.isdigit() else None
    _check_size(length or 0, max_bytes)
    body = bytearray()
    while chunk := response.read1(1 << 16):
        body += chunk
        _check_size(len(body), max_bytes)
    if length is not None and len(body) < length and not response.chunked:
        raise OSError(f"only {len(body)} of {length} bytes arrived")
    return bytes(body)


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise ValueError(f"it holds more than the {max_bytes} bytes allowed; shorten or compress the clip.")


def _checked_url(url: str) -> str:
    """The address with its special characters escaped. Raises ValueError if it is not a plain http(s) address."""
    parts = urlsplit(url)
    if parts.scheme.lower() not in ("http", "https"):
        raise ValueError(f"expected http or https, not {parts.scheme!r}.")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a user and a password in an address are not used; download the file and pass its path.")
    if not parts.hostname:
        raise ValueError("it names no host.")
    host = parts.hostname
    try:
        host = f"[{host}]" if ":" in host else host.encode("idna").decode()
    except UnicodeError as error:
        raise ValueError(f"{host!r} is not the name of a host.") from error
    place = host if parts.port is None else f"{host}:{parts.port}"  # `port` raises ValueError if it is out of range
    path, query = (quote(text, safe=ALLOWED_IN_PATHS + extra) for text, extra in ((parts.path, ""), (parts.query, "?")))
    return urlunsplit((parts.scheme.lower(), place, path, query, ""))


def _checked_host(url: str, hosts: Sequence[str]) -> Any:
    """The parts of an https address on a listed host. Raises ValueError for any other address."""
    if not hosts:
        raise ValueError("no host is allowed here. Send the video itself.")
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if parts.scheme != "https" or host not in hosts or parts.netloc.lower() != host:
        raise ValueError(
            f"it is not allowed: expected https://HOST/... with HOST one of {list(hosts)}, without port and user."
        )
    return urlsplit(_checked_url(url))


def _without_user(url: str) -> str:
    """The address as messages show it."""
    scheme, mark, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}{mark}{place.rpartition('@')[2]}{slash}{path}" if mark else url


class CheckedConnection(http.client.HTTPSConnection):
    """HTTPS to an IP address that was checked. The name is not resolved again, so it cannot change after the check."""

    def connect(self) -> None:
        plain = socket.create_connection((public_address(self.host, self.port), self.port), self.timeout)
        self.sock = self._context.wrap_socket(plain, server_hostname=self.host)


def public_address(host: str, port: int) -> str:
    """An IP address of `host`. Raises ValueError if any IP address of the host is not public."""
    found = [entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for text in found:
        if not _address_is_public(text):
            raise ValueError(f"the host {host!r} is not allowed: its address {text} is not public.")
    return found[0]


def _is_public(host: str | None) -> bool | None:
    """Whether all IP addresses of a host are public; None if they are not known here, as behind a proxy."""
    try:
        found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    return all(_address_is_public(entry[4][0]) for entry in found)


def _address_is_public(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_global and not address.is_multicast
