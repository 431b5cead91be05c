"""Fetch a clip from an http(s) address: one deadline for all of it, limits on its size and, for services, on hosts."""

import contextlib
import http.client
import ipaddress
import queue
import selectors
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit, urlunsplit

from .frames_aigcvqa import seconds_left

SILENCE_S = 30.0  # longest wait for a single answer of the network
HOST_S = 30.0  # for a complete fetch from a listed host
ANY_S = 120.0  # for a complete fetch from any address
EXCESS_S = 1.0  # wait for the end of the connection after the last byte that was announced
MAX_REDIRECTS = 5
ALLOWED_IN_PATHS = "/%:@!$&'()*+,;=~-._"  # everything else is escaped


def download(url: str, max_bytes: int, hosts: Sequence[str] | None = None, seconds: float | None = None) -> bytes:
    """The body at an http(s) address.

    Args:
        url: the address.
        max_bytes: a larger body is refused.
        hosts: None for any address; redirects to other http(s) addresses are then followed, but not from https to http
            and not from a public host into a private network. Otherwise only https addresses on these hosts are
            fetched, without port, user and proxy, and redirects are followed between these hosts alone. All IP
            addresses of a host must be public, so that a listed name cannot lead into the operator's network.
        seconds: time for all of it, from the lookup of the name to the last byte; None for `HOST_S` or `ANY_S`.

    Raises:
        ValueError: if the address is not allowed, cannot be fetched in time, or holds too much, or more or less than
            the server announced; names the address, without a password.
    """
    shown = _without_user(url)
    try:
        if hosts is None:
            return _within(seconds or ANY_S, lambda sockets: _fetch(_checked_url(url), max_bytes, sockets))
        address = _checked_host(url, hosts)
        return _within(seconds or HOST_S, lambda sockets: _fetch(address, max_bytes, sockets, hosts))
    except (OSError, http.client.HTTPException) as error:
        reason = f"the server answered {error.code} {error.reason}" if isinstance(error, HTTPError) else error
        raise ValueError(f"{shown!r} could not be fetched ({reason}); check the address and the network.") from error
    except ValueError as error:
        raise ValueError(f"the address {shown!r} is not fetched: {error}") from error


def _within(seconds: float, fetch: Callable[["_Sockets"], bytes]) -> bytes:
    """The result of `fetch`, which runs in a thread, so that no phase of it can outlast the deadline.

    If time runs out, its connections are ended and no more can be opened, so the thread ends too.
    """
    left = seconds_left()
    seconds = seconds if left is None else min(seconds, left)
    outcome: queue.Queue = queue.Queue()
    sockets = _Sockets()

    def run() -> None:
        try:
            outcome.put((fetch(sockets), None))
        except BaseException as error:
            outcome.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        body, error = outcome.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"not complete after {seconds:.3g} s") from None
    finally:
        sockets.end()
    if error is not None:
        raise error
    return body


class _Sockets:
    """Second handles of the sockets of a fetch, through which another thread can end its connections."""

    def __init__(self) -> None:
        self.handles: list[socket.socket] = []
        self.ended = False
        self.lock = threading.Lock()

    def connect(self, address: tuple[str, int], timeout: float, source: Any = None) -> socket.socket:
        """As `socket.create_connection`; the connection is kept before a proxy or TLS is spoken to."""
        connection = socket.create_connection(address, timeout, source)
        with self.lock:
            if self.ended:  # while the name was looked up
                connection.close()
                raise TimeoutError("the time is over")
            self.handles.append(connection.dup())
        return connection

    def connect_to_public(self, address: tuple[str, int], timeout: float, source: Any = None) -> socket.socket:
        """To an IP address that was checked. The name is not resolved again, so it cannot change after the check."""
        return self.connect((public_address(*address), address[1]), timeout, source)

    def end(self) -> None:
        with self.lock:
            self.ended = True
            for handle in self.handles:
                with contextlib.suppress(OSError):  # it has ended already
                    handle.shutdown(socket.SHUT_RDWR)
                handle.close()

    def has_news(self, seconds: float) -> bool:
        """Whether the last connection has more to read, or has ended, within `seconds`."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.handles[-1], selectors.EVENT_READ)
            return bool(selector.select(seconds))


class _Connections(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Opens connections with a function in place of `socket.create_connection`."""

    def __init__(self, connect: Callable[..., socket.socket]):
        super().__init__(context=ssl.create_default_context())
        self.connect = connect

    def do_open(self, http_class: type, request: urllib.request.Request, **options: Any) -> Any:
        def opened(host: str, **settings: Any) -> http.client.HTTPConnection:
            connection = http_class(host, **settings)
            connection._create_connection = self.connect
            return connection

        return super().do_open(opened, request, **options)


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http(s) addresses alone, or between listed hosts, and checks where they lead."""

    max_redirections = MAX_REDIRECTS
    max_repeats = 2

    def __init__(self, hosts: Sequence[str] | None, from_public: bool | None):
        self.hosts, self.from_public = hosts, from_public

    def redirect_request(self, request, file, code, message, headers, url):
        file.close()  # its body is not read: it may be of any length
        if self.hosts is not None:
            return super().redirect_request(request, file, code, message, headers, _checked_host(url, self.hosts))
        target = urlsplit(_checked_url(url))
        if request.type == "https" and target.scheme != "https":
            raise ValueError(f"it redirects from https to {target.scheme}.")
        if self.from_public and _is_public(target.hostname) is False:
            raise ValueError(f"it redirects from a public host to {target.hostname!r} in a private network.")
        return super().redirect_request(request, file, code, message, headers, urlunsplit(target))


def _fetch(url: str, max_bytes: int, sockets: _Sockets, hosts: Sequence[str] | None = None) -> bytes:
    """From any address, with the proxies of the environment, or from a listed host."""
    opener = urllib.request.OpenerDirector()
    handlers: list[urllib.request.BaseHandler] = [
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ]
    if hosts is None:
        from_public = _is_public(urlsplit(url).hostname)
        handlers += [urllib.request.ProxyHandler(), _Connections(sockets.connect)]
    else:
        from_public = True
        handlers += [_Connections(sockets.connect_to_public)]
    for handler in [*handlers, _CheckedRedirects(hosts, from_public)]:
        opener.add_handler(handler)
    with opener.open(url, timeout=SILENCE_S) as response:
        return _body(response, max_bytes, sockets)


def _body(response: http.client.HTTPResponse, max_bytes: int, sockets: _Sockets) -> bytes:
    """The complete body of a response."""
    if response.status != 200:
        raise ValueError(f"it answered {response.status} ({response.reason}), which is not a file.")
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise ValueError(f"the server compresses it ({encoding}) although that was not asked for.")
    coding = response.headers.get_all("Transfer-Encoding", [])
    if [text.strip().lower() for text in coding] not in ([], ["chunked"]):
        raise ValueError(f"the server sends it as {', '.join(coding)!r}, and only 'chunked' is read.")
    length = _declared_length(response)
    _check_size(length or 0, max_bytes)
    # The response itself would stop at the length that was announced, and say nothing of more or less.
    source = response if response.chunked else response.fp
    body = bytearray()
    while (length is None or len(body) < length) and (chunk := source.read1(1 << 16)):
        body += chunk
        _check_size(len(body), max_bytes)
    if length is None:
        return bytes(body)
    if len(body) < length:
        raise OSError(f"only {len(body)} of {length} bytes arrived")
    if len(body) > length or (response.will_close and sockets.has_news(EXCESS_S) and source.read1(1)):
        raise OSError(f"more than the {length} bytes arrived that were announced")
    return bytes(body)


def _declared_length(response: http.client.HTTPResponse) -> int | None:
    """The length in bytes that the server announced, or None. A length beside chunks has no meaning."""
    declared = {text.strip() for text in response.headers.get_all("Content-Length", [])}
    if not declared or response.chunked:
        return None
    text = declared.pop()
    if declared or not (text.isascii() and text.isdigit()):
        raise ValueError(f"the server gives its length as {', '.join(sorted({text, *declared}))!r}, not as a number.")
    return int(text)


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


def _checked_host(url: str, hosts: Sequence[str]) -> str:
    """The escaped https address on a listed host. Raises ValueError for any other address."""
    if not hosts:
        raise ValueError("no host is allowed here. Send the video itself.")
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if parts.scheme != "https" or host not in hosts or parts.netloc.lower() != host:
        raise ValueError(
            f"it is not allowed: expected https://HOST/... with HOST one of {list(hosts)}, without port and user."
        )
    return _checked_url(url)


def _without_user(url: str) -> str:
    """The address as messages show it."""
    scheme, mark, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}{mark}{place.rpartition('@')[2]}{slash}{path}" if mark else url


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
