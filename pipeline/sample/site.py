"""The sample site: a deterministic stand-in for TLC's site on a loopback port.

It serves made-up months in TLC's layout, or a folder laid out alike, and misbehaves when told to. Promises: the same
request gives the same bytes in every run (with the same versions of numpy and pyarrow); a stopped site leaves no
socket, no thread and no temporary file.
"""

from __future__ import annotations

import socket
import sys
import tempfile
import threading
from contextlib import suppress
from datetime import date
from http.server import ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from types import TracebackType
from typing import Any

from pipeline.sample.faults import Faults
from pipeline.sample.handler import Handler, Request
from pipeline.sample.shelf import LAST, Kept, Made

_STOP_S = 10


class Server(ThreadingHTTPServer):
    """The HTTP server of one site; it knows its open connections, so that it can end them."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], site: SampleSite) -> None:
        self.site = site
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Bind without asking the name service for this machine's name, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Note the connection, then let a thread of its own answer it."""
        with self._changed:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close the connection for good."""
        super().shutdown_request(request)
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report what went wrong here; a client that went away, or a site being stopped, is no fault of it."""
        if not self.site.stopping and not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def end_connections(self) -> None:
        """Hang up on everybody, and wait until the threads that talk to them are done."""
        with self._changed:
            for connection in self._open:
                # The client may have gone before.
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, timeout=_STOP_S)


class SampleSite:
    """A stand-in for TLC's site, from entering its `with` block (or `start`) to leaving it (or `stop`).

    Months have TLC's row counts times `scale`, or `rows` rows each; later months than `last` are not published yet.
    With `folder` it serves that folder's files instead. Files are made on first request and kept in `cache`, by default
    a temporary folder that goes with the site.
    """

    def __init__(
        self,
        *,
        scale: float = 1.0,
        rows: int | None = None,
        last: date = LAST,
        seed: int = 0,
        folder: Path | None = None,
        cache: Path | None = None,
        row_group_rows: int = 1 << 20,
        address: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._options: dict[str, Any] = {"scale": scale, "rows": rows, "last": last, "seed": seed}
        self._options["row_group_rows"] = row_group_rows
        self._folder, self._cache, self._bind = folder, cache, (address, port)
        self._stop = threading.Event()
        self._server: Server | None = None
        #: Every request so far, oldest first.
        self.requests: list[Request] = []
        #: What to do wrong.
        self.faults = Faults()

    def __enter__(self) -> SampleSite:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The site's address without a slash at its end; what `source` is set to."""
        assert self._server is not None, "the site has not been started"
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    @property
    def stopping(self) -> bool:
        """Whether the site has been told to stop."""
        return self._stop.is_set()

    def start(self) -> None:
        """Begin to answer, in threads that do not keep the program alive."""
        self._stop.clear()
        self._server = Server(self._bind, self)
        # A folder that another thread still writes into when the site stops may resist.
        self._temporary = (
            None if self._cache else tempfile.TemporaryDirectory(prefix="sample-site-", ignore_cleanup_errors=True)
        )
        cache = self._cache or Path(self._temporary.name if self._temporary else "")
        self.shelf: Made | Kept = Kept(self._folder, cache) if self._folder else Made(cache, **self._options)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Hang up, free the port and remove the temporary files; stopping twice is no error."""
        if self._server is None:
            return
        self._stop.set()
        self._server.shutdown()
        self._server.end_connections()
        self._server.server_close()
        self._thread.join(_STOP_S)
        self._server = None
        if self._temporary:
            self._temporary.cleanup()

    def pause(self, seconds: float) -> None:
        """Wait; not longer than the site lives."""
        self._stop.wait(seconds)
