"""A loopback server that sends just the bytes it was given: for answers that no well-behaved server gives."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType

#: What is sent for a request, or a function that sends it on the connection itself.
Script = bytes | Callable[[socket.socket], None]


def answer(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    """An answer whose length is announced as that of the body, or as `length`; -1 announces none."""
    lines = [f"HTTP/1.1 {status}", *headers, "Connection: close"]
    if length != -1:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*pieces: bytes) -> bytes:
    """A body of chunks, its end included when the last piece is empty."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


def reset(connection: socket.socket) -> None:
    """Break the connection so that the other side gets a reset instead of an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class ScriptedSite:
    """Answers the first request with the first script, the second with the second, further ones with the last.

    Every answer ends its connection. Unless `first`, a script gets the connection as it is.
    `requests` holds the heads of all requests so far.
    """

    def __init__(self, *scripts: Script, first: bool = True) -> None:
        self._scripts = scripts
        self._first = first
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.stopping = threading.Event()
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        host, port = self._listener.getsockname()
        return f"http://{host}:{port}"

    def __enter__(self) -> ScriptedSite:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        # Wakes the thread; a mere close would leave it in accept.
        socket.create_connection(self._listener.getsockname()).close()
        self._thread.join(10)
        self._listener.close()

    def header(self, request: int, name: str) -> str | None:
        """A header of a request, by its place in `requests`."""
        for line in self.requests[request].splitlines()[1:]:
            found, _, text = line.partition(": ")
            if found.lower() == name.lower():
                return text
        return None

    def _serve(self) -> None:
        while not self.stopping.is_set():
            connection, _ = self._listener.accept()
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        head = b""
        while self._first and not head.endswith(b"\r\n\r\n") and (got := connection.recv(4096)):
            head += got
        if (self._first and not head) or self.stopping.is_set():
            return
        script = self._scripts[min(len(self.requests), len(self._scripts) - 1)]
        self.requests.append(head.decode("latin-1"))
        try:
            if isinstance(script, bytes):
                connection.sendall(script)
                connection.shutdown(socket.SHUT_WR)
            else:
                script(connection)
        except OSError:
            # The client has gone.
            return
