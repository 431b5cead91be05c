"""Fetching over real connections: servers that are slow, silent, lie about lengths or redirect."""

import gzip
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from modeling_aigcvqa import VideoReadError, downloads_aigcvqa
from modeling_aigcvqa.downloads_aigcvqa import download
from modeling_aigcvqa.frames_aigcvqa import ReadLimits, reading_within

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def answers():
    """A server that hands its connection to a function; gives its address."""
    listeners = []

    def start(answer):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    try:
                        answer(connection)
                    except OSError:
                        continue

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/clip.mp4"

    yield start
    for listener in listeners:
        listener.close()


def drip(start, piece, pause=0.05):
    def answer(connection):
        connection.sendall(start)
        while True:
            connection.sendall(piece)
            time.sleep(pause)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        lambda connection: time.sleep(5),
        drip(OK, b"X-More: 1\r\n", 0.1),
        drip(OK + b"Content-Length: 1000000\r\n\r\n", b"a"),
        drip(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
    ],
    ids=["silence", "headers without end", "a slow body", "slow chunks"],
)
def test_one_deadline_for_all_of_it(answers, answer):
    with pytest.raises(ValueError, match=r"clip.mp4' could not be fetched \(not complete after 0.3 s"):
        download(answers(answer), 10**7, seconds=0.3)


@pytest.mark.parametrize("part", ["handshake", "headers", "body"])
def test_nothing_stays_open_after_the_deadline(part):
    """The server sees the end of the connection soon after the deadline, whatever the client waited for."""
    started = {"handshake": b"", "headers": OK, "body": OK + b"Content-Length: 9\r\n\r\na"}[part]
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as server:
        accepted = server.submit(accept, listener, started)
        url = f"{'https' if part == 'handshake' else 'http'}://127.0.0.1:{listener.getsockname()[1]}/clip.mp4"
        with pytest.raises(ValueError, match=r"not complete after 0.3 s"):
            download(url, 100, seconds=0.3)
        with accepted.result() as connection:
            connection.settimeout(1)
            while connection.recv(4096):
                pass


def accept(listener, answer):
    connection, _ = listener.accept()
    connection.sendall(answer)
    return connection


def test_the_lookup_of_the_name_counts(monkeypatch):
    monkeypatch.setattr(downloads_aigcvqa.socket, "getaddrinfo", lambda *_, **__: time.sleep(5))
    with pytest.raises(ValueError, match=r"not complete after 0.3 s"):
        download("http://clips.example.org/clip.mp4", 100, seconds=0.3)


def test_the_limit_of_the_clip_counts_too(answers):
    url = answers(drip(OK + b"Content-Length: 1000000\r\n\r\n", b"a"))
    with reading_within(ReadLimits(time.monotonic() + 0.3)), pytest.raises(ValueError, match="not complete after"):
        download(url, 10**7)


@pytest.mark.parametrize(
    ("head", "body", "message"),
    [
        (b"Content-Length: 10", b"short", "only 5 of 10 bytes arrived"),
        (b"Transfer-Encoding: chunked", b"5\r\nshort\r\n", "IncompleteRead"),
        (b"Content-Encoding: gzip", gzip.compress(bytes(10**6)), "the server compresses it"),
        (b"Content-Length: 1001", b"", "more than the 1000 bytes allowed"),
        (b"X: 1", bytes(1001), "more than the 1000 bytes allowed"),
        (b"Content-Length: 3", b"clip", "more than the 3 bytes arrived"),
        (b"Content-Length: 4\r\nContent-Length: 3", b"clip", "its length as '3, 4'"),
        (b"Content-Length: -4", b"clip", "its length as '-4'"),
        (b"Transfer-Encoding: gzip, chunked", b"4\r\nclip\r\n0\r\n\r\n", "sends it as 'gzip, chunked'"),
    ],
)
def test_bodies_that_are_not_what_was_announced(answers, head, body, message):
    with pytest.raises(ValueError, match=message):
        download(answers(lambda connection: connection.sendall(OK + head + b"\r\n\r\n" + body)), 1000)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((204, {}, b""), "answered 204"),
        ((206, {}, b"part"), "answered 206"),
        ((404, {}, b""), "answered 404"),
        ((500, {}, b""), "answered 500"),
        ((302, {"Location": "/again"}, b""), "infinite loop"),
        ((302, {"Location": "file:///etc/passwd"}, b""), "Redirection to url"),
        ((302, {"Location": "ftp://127.0.0.1/clip"}, b""), "expected http or https, not 'ftp'"),
        ((302, {}, b""), "answered 302"),
    ],
)
def test_other_answers(serve, answer, message):
    port = serve(lambda path, _: answer)
    with pytest.raises(ValueError, match=message):
        download(f"http://127.0.0.1:{port}/clip.mp4", 1000)


def test_the_body_of_a_redirect_is_not_read(answers):
    clip = answers(lambda connection: connection.sendall(OK + b"Content-Length: 4\r\n\r\nclip"))
    endless = drip(b"HTTP/1.1 302 Found\r\nLocation: " + clip.encode() + b"\r\n\r\n", bytes(10**6), pause=0)
    assert download(answers(endless), 100, seconds=5) == b"clip"


def test_a_byte_that_comes_late_is_still_too_much(answers):
    def answer(connection):
        connection.sendall(OK + b"Connection: close\r\nContent-Length: 4\r\n\r\nclip")
        time.sleep(0.2)
        connection.sendall(b"s")

    with pytest.raises(ValueError, match="more than the 4 bytes arrived"):
        download(answers(answer), 100)


def test_redirects_are_followed_but_not_into_a_private_network(serve, monkeypatch):
    pages = {"/a": (302, {"Location": "/b%20c?d=1"}, b""), "/b%20c?d=1": (200, {}, b"clip")}
    port = serve(lambda path, _: pages[path])
    assert download(f"http://127.0.0.1:{port}/a", 100) == b"clip"
    assert download(f"http://127.0.0.1:{port}/b c?d=1", 100) == b"clip", "spaces are escaped"
    known = iter([True, False])
    monkeypatch.setattr(downloads_aigcvqa, "_is_public", lambda _: next(known))
    with pytest.raises(ValueError, match=r"redirects from a public host to .127\.0\.0\.1. in a private network"):
        download(f"http://127.0.0.1:{port}/a", 100)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://[bad/clip.mp4", "Invalid IPv6 URL"),
        ("http://host:99999/clip.mp4", "Port out of range"),
        ("http:///clip.mp4", "names no host"),
        ("http://me:secret@host/clip.mp4", "a user and a password"),
    ],
)
def test_addresses_that_cannot_be_used(url, message):
    with pytest.raises(ValueError, match=message) as error:
        download(url, 100)
    assert "clip.mp4" in str(error.value)
    assert "secret" not in str(error.value)


def test_the_reader_uses_it(answers, processor):
    url = answers(lambda connection: connection.sendall(OK + b"Content-Length: 10\r\n\r\nshort"))
    with pytest.raises(VideoReadError, match="only 5 of 10 bytes arrived"):
        processor(videos=url, text="a")
