"""The sample site: a deterministic stand-in for TLC's site on a loopback port.

It serves made-up months in TLC's layout, or the files of a folder, and fails on demand (`faults`). Promises: the same
request gives the same bytes in each run (with the same versions of numpy and pyarrow); a stopped site leaves no
socket, no thread and no temporary file.
"""

from __future__ import annotations

import socket
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from types import TracebackType
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from pipeline.sample import answers
from pipeline.sample.answers import Answer
from pipeline.sample.faults import Fault, Faults
from pipeline.sample.shelf import LAST, Kept, Made

_STOP_S = 10
_CHUNK = 1 << 16


@dataclass
class Request:
    """A request to the site, and the response to it; `sent` grows while the body is sent."""

    method: str
    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0


class Server(ThreadingHTTPServer):
    """The HTTP server of one site; it keeps a set of its open connections, so that it can close them."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], site: SampleSite) -> None:
        self.site = site
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without a look-up of this machine's name, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Note the connection and start its thread."""
        with self._changed:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close the connection."""
        super().shutdown_request(request)
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the error, unless the client has disconnected or the site is being stopped."""
        if not self.site.stopping and not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def end_connections(self) -> None:
        """Close all connections, and wait until their threads have ended."""
        with self._changed:
            for connection in self._open:
                # The client may have disconnected.
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, timeout=_STOP_S)


class SampleSite:
    """A stand-in for TLC's site; it runs within its `with` block, or from `start` to `stop`.

    Months have TLC's numbers of rows times `scale`, or `rows` rows each; months after `last` are not published yet.
    With `folder` it serves that folder's files instead. Files are made on first request and stored in `cache`, by
    default a temporary folder that is deleted with the site.
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
        #: All requests, oldest first.
        self.requests: list[Request] = []
        #: The faults to produce.
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
        """The site's address without a slash at its end: the value for the setting `source`."""
        assert self._server is not None, "the site has not been started"
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    @property
    def stopping(self) -> bool:
        """Whether the site is being stopped."""
        return self._stop.is_set()

    def start(self) -> None:
        """Start to respond, in threads that do not keep the program alive."""
        self._stop.clear()
        self._server = Server(self._bind, self)
        # Deletion can fail while another thread still writes into the folder.
        self._temporary = (
            None if self._cache else tempfile.TemporaryDirectory(prefix="sample-site-", ignore_cleanup_errors=True)
        )
        cache = self._cache or Path(self._temporary.name if self._temporary else "")
        self.shelf: Made | Kept = Kept(self._folder, cache) if self._folder else Made(cache, **self._options)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close all connections and the port, and delete the temporary files; has no effect on a stopped site."""
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
        """Wait, at most until the site stops."""
        self._stop.wait(seconds)


class _Handler(BaseHTTPRequestHandler):
    """Responds to GET and HEAD for the `SampleSite` of its server."""

    protocol_version = "HTTP/1.1"
    # Headers and body are two writes; Nagle's algorithm would delay the second until the client's ACK (40 ms).
    disable_nagle_algorithm = True

    @property
    def _site(self) -> SampleSite:
        return cast("Server", self.server).site

    def version_string(self) -> str:
        """The value of the Server header."""
        return "sample-site (a stand-in for the TLC site)"

    def log_message(self, *args: object) -> None:
        """Print nothing: `SampleSite.requests` is the log."""

    def do_HEAD(self) -> None:  # noqa: N802, RUF100  (the name that http.server calls)
        """Respond like `do_GET`, without the body."""
        self.do_GET()

    def do_GET(self) -> None:  # noqa: N802, RUF100
        """Send a file or a part of it, or produce a fault."""
        path = unquote(urlsplit(self.path).path)
        request = Request(self.command, path, dict(self.headers.items()))
        self._site.requests.append(request)
        faults = {fault.kind: fault for fault in self._site.faults.take(path)}
        try:
            self._answer(path, faults, request)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _answer(self, path: str, faults: dict[str, Fault], request: Request) -> None:
        if "delay" in faults:
            self._site.pause(_value(faults["delay"], 1))
        if "drop" in faults:
            return self._disconnect()
        failing = next((fault for fault in faults.values() if fault.status), None)
        answer = answers.failure(failing.status or 500, failing.value) if failing else self._find(path, faults)
        request.status = answer.status
        self._send_head(answer, faults)
        if self.command != "HEAD":
            self._send_body(answer, faults, request)
        return None

    def _find(self, path: str, faults: dict[str, Fault]) -> Answer:
        if path == "/":
            return answers.index()
        if "html" in faults:
            return answers.page()
        item = self._site.shelf.find(path, edition=int("republished" in faults))
        if item is None:
            return answers.failure(403)
        size = item.size
        if "truncate" in faults:
            size = min(size, int(_value(faults["truncate"], size // 2)))
        if "bare" in faults or "ignore_range" in faults:
            return answers.whole_file(item, size, bare="bare" in faults)
        return answers.requested_part(item, size, dict(self.headers.items()))

    def _send_head(self, answer: Answer, faults: dict[str, Fault]) -> None:
        self.send_response(answer.status)
        for name, text in answer.headers.items():
            self.send_header(name, text)
        if answer.status != 304:
            excess = int(_value(faults["length"], 1000)) if "length" in faults else 0
            self.send_header("Content-Length", str(max(0, answer.length + excess)))
        self.end_headers()

    def _send_body(self, answer: Answer, faults: dict[str, Fault], request: Request) -> None:
        limit = answer.length
        if "cut" in faults:
            limit = min(limit, int(_value(faults["cut"], limit // 2)))
        rate = _value(faults["slow"], 10_000) if "slow" in faults else None
        # Many waits of a tenth of a second, not one long wait.
        chunk_bytes = _CHUNK if rate is None else max(1, int(rate / 10))
        for chunk in answers.chunks(answer, limit, chunk_bytes, self._flipped(answer, faults)):
            request.sent += len(chunk)
            self.wfile.write(chunk)
            if rate is not None:
                self._site.pause(len(chunk) / rate)
        if "cut" in faults:
            self._disconnect()
        elif "length" in faults:
            self.close_connection = True

    def _flipped(self, answer: Answer, faults: dict[str, Fault]) -> int | None:
        if "corrupt" not in faults or answer.item is None:
            return None
        return int(_value(faults["corrupt"], answer.item.size // 2))

    def _disconnect(self) -> None:
        """Close the connection at once, so that the client sees its end."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


def _value(fault: Fault, default: float) -> float:
    return default if fault.value is None else fault.value
