"""A connection whose exchanges end: one deadline over all waits of an exchange, and a largest answer.

http.client has a timeout of each read, so a server that sends a byte now and then holds its caller for ever, and it
reads whatever a server sends. Here the socket asks before every wait how long is left.
"""

import contextlib
import http.client
import io
import re
import socket
import ssl
import time
import zlib
from typing import Any, Optional
from urllib.parse import SplitResult, urlsplit

PIECE_BYTES = 1 << 20  # memory grows with what was sent, not with what a header announced


class TooLong(Exception):
    """The answer has more bytes than are taken."""


class BadCoding(Exception):
    """The answer's Content-Encoding cannot be undone."""


class _Deadline:
    """Shared by a connection and its socket."""

    def __init__(self) -> None:
        self.end = 0.0  # of time.monotonic()

    def left(self) -> float:
        """Seconds, more than 0."""
        seconds = self.end - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("timed out")
        return seconds


class _Reader(io.RawIOBase):
    def __init__(self, sock: socket.socket, deadline: _Deadline):
        self._sock, self._deadline = sock, deadline
        self._raw = sock.makefile("rb", buffering=0)  # holds the socket open until the answer is read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Optional[int]:
        self._sock.settimeout(self._deadline.left())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Socket:
    """What http.client uses of a socket."""

    def __init__(self, sock: socket.socket, deadline: _Deadline):
        self._sock, self._deadline = sock, deadline

    def sendall(self, data: Any) -> None:
        view = memoryview(data)
        while view:
            self._sock.settimeout(self._deadline.left())
            view = view[self._sock.send(view):]

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._deadline))

    def close(self) -> None:
        self._sock.close()


def _connected(host: str, port: int, deadline: _Deadline) -> socket.socket:
    """To the first address that answers; each may take its part of the time, so that a dead one leaves some."""
    addresses = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    failure = OSError("the name has no address")
    for index, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(deadline.left() / (len(addresses) - index))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as error:
            sock.close()
            failure = error
    raise failure


def address_of(url: str) -> SplitResult:
    """The parts of a server's URL, or a ValueError that tells no password."""
    parts = urlsplit(url)
    if (parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment
            or re.search("[^!-~]", parts.path) or re.search(r"[\x00- \x7f]", url)):
        raise ValueError(f"{_shown(url)!r} is not an http:// or https:// URL of a server")
    if parts.username is not None:
        raise ValueError("the URL has a user's name in it, which nobody would be sent; a token is given as token=")
    with contextlib.suppress(ValueError):  # it tells what is there instead of a number: of a password, maybe
        if parts.port != 0:
            return parts
    raise ValueError(f"{_shown(url)!r} has no port from 1 to 65535 where one should be")


def _shown(url: str) -> str:
    """Without a name and a password, up to the last @: a password may hold what should have been encoded."""
    return re.sub(r"^(.*?://|).*@", r"\1", url, flags=re.DOTALL)


class Connection(http.client.HTTPConnection):
    """To the server of a URL; `begin` comes before each exchange. Only the look-up of its name has no bound."""

    def __init__(self, url: SplitResult, tls: Optional[ssl.SSLContext]):
        usual = http.client.HTTPS_PORT if tls else http.client.HTTP_PORT
        super().__init__(str(url.hostname), url.port or usual)
        self.default_port = usual  # which the header Host leaves out
        self._deadline = _Deadline()
        self._tls = tls

    def begin(self, end: float) -> None:
        """The next exchange may last until then, of time.monotonic()."""
        self._deadline.end = end

    def connect(self) -> None:
        sock = _connected(self.host, self.port, self._deadline)
        try:
            if self._tls is not None:
                sock.settimeout(self._deadline.left())
                sock = self._tls.wrap_socket(sock, server_hostname=self.host)
        except BaseException:
            sock.close()
            raise
        self.sock: Any = _Socket(sock, self._deadline)


def read_answer(response: http.client.HTTPResponse, most: int) -> bytes:
    """The body, its coding undone: of at most `most` bytes before and after."""
    content = bytearray()
    if response.length is not None and response.length > most:
        raise TooLong
    while True:
        piece = response.read(min(PIECE_BYTES, most + 1 - len(content)))
        content += piece
        if len(content) > most:
            raise TooLong
        if not piece:
            break
    if response.length:
        raise http.client.IncompleteRead(bytes(content), response.length)
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    return bytes(content) if coding in ("", "identity") else _expanded(bytes(content), coding, most)


def _expanded(content: bytes, coding: str, most: int) -> bytes:
    """This client asks for no coding, but something between it and the server may apply one."""
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise BadCoding(f"Content-Encoding {coding!r}, which this client has not asked for")
    expander = zlib.decompressobj(32 + zlib.MAX_WBITS)  # both, by their first bytes
    try:
        text = expander.decompress(content, most + 1)
    except zlib.error as error:
        raise BadCoding(f"{coding}: {error}") from None
    if len(text) > most:
        raise TooLong
    if not expander.eof or expander.unused_data:
        raise BadCoding(f"{coding}: the answer does not end where its coding does")
    return text
