"""One connection of the sample site: requests in, answers out, and the faults that were ordered for them."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit

from pipeline.sample import answers
from pipeline.sample.answers import Answer
from pipeline.sample.faults import Fault

if TYPE_CHECKING:
    from pipeline.sample.site import SampleSite, Server

_CHUNK = 1 << 16


@dataclass
class Request:
    """A request that the site has seen, and what it answered; `sent` grows while the body is on its way."""

    method: str
    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the `SampleSite` that owns its server."""

    protocol_version = "HTTP/1.1"
    # Headers and body leave in two writes; Nagle's algorithm would hold the second back for the client's ACK (40 ms).
    disable_nagle_algorithm = True

    @property
    def _site(self) -> SampleSite:
        return cast("Server", self.server).site

    def version_string(self) -> str:
        """What the Server header says."""
        return "sample-site (a stand-in for the TLC site)"

    def log_message(self, *args: object) -> None:
        """Say nothing: `SampleSite.requests` is the log."""

    def do_HEAD(self) -> None:  # noqa: N802, RUF100  (http.server looks for this name)
        """Answer like `do_GET`, without the body."""
        self.do_GET()

    def do_GET(self) -> None:  # noqa: N802, RUF100
        """Send a file or a part of it, or the fault that was ordered."""
        path = unquote(urlsplit(self.path).path)
        seen = Request(self.command, path, dict(self.headers.items()))
        self._site.requests.append(seen)
        faults = {fault.kind: fault for fault in self._site.faults.take(path)}
        try:
            self._answer(path, faults, seen)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _answer(self, path: str, faults: dict[str, Fault], seen: Request) -> None:
        if "delay" in faults:
            self._site.pause(_value(faults["delay"], 1))
        if "drop" in faults:
            return self._hang_up()
        failing = next((fault for fault in faults.values() if fault.status), None)
        answer = answers.failure(failing.status or 500, failing.value) if failing else self._find(path, faults)
        seen.status = answer.status
        self._send_head(answer, faults)
        if self.command != "HEAD":
            self._send_body(answer, faults, seen)
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
            lie = int(_value(faults["length"], 1000)) if "length" in faults else 0
            self.send_header("Content-Length", str(max(0, answer.length + lie)))
        self.end_headers()

    def _send_body(self, answer: Answer, faults: dict[str, Fault], seen: Request) -> None:
        limit = answer.length
        if "cut" in faults:
            limit = min(limit, int(_value(faults["cut"], limit // 2)))
        rate = _value(faults["slow"], 10_000) if "slow" in faults else None
        # Slowness in tenths of a second, not in one long wait.
        chunk_bytes = _CHUNK if rate is None else max(1, int(rate / 10))
        for chunk in answers.chunks(answer, limit, chunk_bytes, self._flipped(answer, faults)):
            seen.sent += len(chunk)
            self.wfile.write(chunk)
            if rate is not None:
                self._site.pause(len(chunk) / rate)
        if "cut" in faults:
            self._hang_up()
        elif "length" in faults:
            self.close_connection = True

    def _flipped(self, answer: Answer, faults: dict[str, Fault]) -> int | None:
        if "corrupt" not in faults or answer.item is None:
            return None
        return int(_value(faults["corrupt"], answer.item.size // 2))

    def _hang_up(self) -> None:
        """Close the connection, so that the client sees an end and not a pause."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


def _value(fault: Fault, default: float) -> float:
    return default if fault.value is None else fault.value
