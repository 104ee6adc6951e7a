"""A proxy in front of one emulator: it records every request, and injects faults that a test orders.

    with Gateway(emulator.url) as gateway:
        client = storage.Client(…, client_options={"api_endpoint": gateway.url})
        gateway.fail(503, method="GET", path="prefix=trips/", times=2)
        …
        assert [request.status for request in gateway.requests] == [503, 503, 200]

Bodies are streamed both ways. The emulator's address in answers (Location, selfLink, mediaLink) is replaced by the
gateway's, so that later requests come through it, too. A fault applies to requests whose method and path match;
`path` is a regular expression that is searched for in the decoded path with its query. At most one fault applies to a
request: the oldest that matches and is not used up. The gateway's threads run in this process: code that forks without
exec (a Luigi worker) must run as a separate command.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from pipeline.sample.site import Server

_CHUNK = 1 << 16
_STOP_S = 10
_TIMEOUT_S = 60
#: Headers of the connection, not of the message; and headers that the gateway sets itself.
_HOP = {"connection", "keep-alive", "host", "transfer-encoding", "content-length", "expect", "date", "server"}
#: The most common reason in Google's errors with a status.
_REASONS = {
    400: "invalid",
    401: "authError",
    403: "forbidden",
    404: "notFound",
    409: "duplicate",
    412: "conditionNotMet",
    429: "rateLimitExceeded",
    500: "internalError",
    503: "backendError",
}


@dataclass
class Request:
    """A recorded request. `path` is decoded; `body` is the parsed JSON body; `fault` is the applied `Fault.action`."""

    method: str
    path: str
    query: dict[str, str]
    headers: Message
    body: Any = None
    body_bytes: int = 0
    status: int = 0
    fault: str | None = None

    @property
    def target(self) -> str:
        """The decoded path with its query, in which the path of a fault is searched for."""
        query = "&".join(f"{name}={text}" for name, text in self.query.items())
        return f"{self.path}?{query}" if query else self.path


@dataclass
class Fault:
    """An action to inject `times` times (None: always), after `skip` matching requests without a fault."""

    action: str
    method: str | None
    path: re.Pattern[str]
    times: int | None = 1
    skip: int = 0
    answer: Answer | None = None
    after_bytes: int = 0
    seconds: float = 0
    #: Set when the fault is applied to a request.
    reached: threading.Event = field(default_factory=threading.Event)
    #: For a request on hold: set it to let the request continue.
    released: threading.Event = field(default_factory=threading.Event)

    def applies_to(self, request: Request) -> bool:
        """Whether the fault applies to the request; counts it."""
        if self.times == 0 or self.method not in (None, request.method) or not self.path.search(request.target):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass
class Answer:
    """The answer to the client. `body` is whole, or a stream of `length` bytes (None: unknown)."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | Iterable[bytes] = b""
    length: int | None = None

    @classmethod
    def of_json(cls, status: int, value: Any, **headers: str) -> Answer:
        """A JSON answer; `Retry_After` is the header Retry-After."""
        named = [(name.replace("_", "-"), text) for name, text in headers.items()]
        return cls(status, [("Content-Type", "application/json; charset=UTF-8"), *named], json.dumps(value).encode())

    @classmethod
    def of_error(cls, status: int, reason: str, message: str, **headers: str) -> Answer:
        """An error as Google's JSON APIs return it: https://cloud.google.com/bigquery/docs/error-messages."""
        one = {"domain": "global", "reason": reason, "message": message}
        return cls.of_json(status, {"error": {"code": status, "message": message, "errors": [one]}}, **headers)

    def json(self) -> Any:
        """The parsed JSON body."""
        assert isinstance(self.body, bytes)
        return json.loads(self.body)


class Gateway:
    """The proxy in front of the server at `target`; it runs during its `with` block."""

    def __init__(self, target: str) -> None:
        self.target = target
        #: All requests, oldest first: recorded on arrival; the status is set before the client gets the answer.
        self.requests: list[Request] = []
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def __enter__(self) -> Gateway:
        self._server = Server(("127.0.0.1", 0), cast("Any", self))
        self._server.RequestHandlerClass = Handler
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Close all connections and free the port; stopping twice is no error."""
        if self._stop.is_set():
            return
        self._stop.set()
        for fault in self._faults:
            fault.released.set()
        self._server.shutdown()
        self._server.end_connections()
        self._server.server_close()
        self._thread.join(_STOP_S)

    @property
    def url(self) -> str:
        """The gateway's address without a trailing slash."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def stopping(self) -> bool:
        """Whether the block has ended."""
        return self._stop.is_set()

    def clear(self) -> None:
        """Forget all requests and faults."""
        with self._lock:
            self.requests.clear()
            self._faults.clear()

    def seen(self, method: str | None = None, path: str = "") -> list[Request]:
        """The recorded requests whose method and path match, as for faults."""
        return [one for one in self.requests if method in (None, one.method) and re.search(path, one.target)]

    # Faults. Each method returns the fault, so that a test can wait for `reached`.

    def fail(
        self,
        status: int,
        *,
        method: str | None = None,
        path: str = "",
        times: int | None = 1,
        skip: int = 0,
        reason: str | None = None,
        message: str | None = None,
        retry_after: int | None = None,
    ) -> Fault:
        """Answer with an error like Google's; the request does not reach the emulator."""
        headers = {} if retry_after is None else {"Retry_After": str(retry_after)}
        reason = reason or _REASONS.get(status, "backendError")
        answer = Answer.of_error(status, reason, message or f"{reason}, ordered by the test", **headers)
        return self._order(Fault("fail", method, re.compile(path), times, skip, answer=answer))

    def cut_upload(
        self, after_bytes: int, *, method: str | None = None, path: str = "", times: int | None = 1, skip: int = 0
    ) -> Fault:
        """Close both connections when so many bytes of the request's body have reached the emulator."""
        return self._order(Fault("cut_upload", method, re.compile(path), times, skip, after_bytes=after_bytes))

    def cut_download(
        self, after_bytes: int, *, method: str | None = None, path: str = "", times: int | None = 1, skip: int = 0
    ) -> Fault:
        """Close the connection when so many bytes of the answer's body have been sent."""
        return self._order(Fault("cut_download", method, re.compile(path), times, skip, after_bytes=after_bytes))

    def lose_answer(self, *, method: str | None = None, path: str = "", times: int | None = 1, skip: int = 0) -> Fault:
        """Let the emulator handle the request, then close the connection without an answer."""
        return self._order(Fault("lose_answer", method, re.compile(path), times, skip))

    def delay(
        self, seconds: float, *, method: str | None = None, path: str = "", times: int | None = 1, skip: int = 0
    ) -> Fault:
        """Wait before forwarding the request."""
        return self._order(Fault("delay", method, re.compile(path), times, skip, seconds=seconds))

    def hold(self, *, method: str | None = None, path: str = "", times: int | None = 1, skip: int = 0) -> Fault:
        """Hold the request until the fault's `released` is set or the gateway stops."""
        return self._order(Fault("hold", method, re.compile(path), times, skip))

    def _order(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
        return fault

    def record(self, request: Request) -> Fault | None:
        """Record the request; returns the fault that applies to it."""
        with self._lock:
            self.requests.append(request)
            fault = next((fault for fault in self._faults if fault.applies_to(request)), None)
            request.fault = fault and fault.action
            return fault

    def pause(self, fault: Fault) -> None:
        """Wait as a delay or a hold says, until the gateway stops at the latest."""
        fault.reached.set()
        if fault.action == "delay":
            self._stop.wait(fault.seconds)
        elif fault.action == "hold":
            fault.released.wait()

    def stand_in(self, request: Request) -> Answer | None:
        """The gateway's own answer, for what the emulator lacks; None to forward the request."""
        return None

    def correct(self, request: Request, answer: Answer) -> Answer:
        """The answer for the client, given the emulator's whole answer; not called for the contents of objects."""
        return answer


class Handler(BaseHTTPRequestHandler):
    """One connection of a client; each request uses a new connection to the emulator."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def _gateway(self) -> Gateway:
        return cast("Gateway", cast("Server", self.server).site)

    def log_message(self, *args: object) -> None:
        """Log nothing: `Gateway.requests` is the log."""

    def handle_expect_100(self) -> bool:
        """Request the body immediately."""
        self.send_response_only(100)
        self.end_headers()
        return True

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        request = Request(
            self.command, unquote(parts.path), dict(parse_qsl(parts.query, keep_blank_values=True)), self.headers
        )
        body: Iterable[bytes] = self._body()
        if _is_json(self.headers):
            whole = b"".join(body)
            request.body, body = _parsed(whole), [whole]
        fault = self._gateway.record(request)
        try:
            self._handle(request, body, fault)
        except (OSError, http.client.HTTPException):
            self._close()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve  # noqa: N815, RUF100

    def _handle(self, request: Request, body: Iterable[bytes], fault: Fault | None) -> None:
        if fault:
            self._gateway.pause(fault)
            if self._gateway.stopping:
                raise ConnectionError("the gateway has stopped")
        action = fault.action if fault else ""
        stand_in = fault.answer if fault else None
        if stand_in is None and action != "cut_upload":
            stand_in = self._gateway.stand_in(request)
        if stand_in:
            request.body_bytes = sum(map(len, body))  # read, so that the connection can be reused
            self._reply(request, stand_in, fault)
            return
        with closing(http.client.HTTPConnection(urlsplit(self._gateway.target).netloc, timeout=_TIMEOUT_S)) as emulator:
            self._forward(emulator, request, body, fault.after_bytes if fault and action == "cut_upload" else None)
            if action == "cut_upload":
                self._close()
            else:
                self._reply(request, self._answer(emulator, request), fault)

    def _body(self) -> Iterator[bytes]:
        """The request's body, in chunks."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        left = int(self.headers.get("Content-Length", 0))
        while left:
            chunk = self.rfile.read(min(left, _CHUNK))
            if not chunk:
                raise ConnectionError("the client closed the connection")
            left -= len(chunk)
            yield chunk

    def _forward(
        self, emulator: http.client.HTTPConnection, request: Request, body: Iterable[bytes], limit: int | None
    ) -> None:
        """Forward the request, or only `limit` bytes of its body."""
        emulator.putrequest(self.command, self.path, skip_accept_encoding=True)
        plain = not _is_media(request)  # an answer that is changed must not be compressed
        for name, text in self.headers.items():
            if name.lower() not in _HOP and not (plain and name.lower() == "accept-encoding"):
                emulator.putheader(name, text)
        chunked = "Transfer-Encoding" in self.headers
        if chunked:
            emulator.putheader("Transfer-Encoding", "chunked")
        elif "Content-Length" in self.headers:
            emulator.putheader("Content-Length", self.headers["Content-Length"])
        emulator.endheaders()
        sent = 0
        for chunk in body:
            part = chunk if limit is None else chunk[: limit - sent]
            sent += len(part)
            request.body_bytes = sent
            self._send(emulator, b"%x\r\n%s\r\n" % (len(part), part) if chunked and part else part)
            if limit is not None and sent >= limit:
                return
        if chunked:
            self._send(emulator, b"0\r\n\r\n")

    def _send(self, emulator: http.client.HTTPConnection, data: bytes) -> None:
        """Send; an emulator that answers before the end of the body may have closed the connection."""
        with suppress(ConnectionError):
            emulator.send(data)

    def _answer(self, emulator: http.client.HTTPConnection, request: Request) -> Answer:
        response = emulator.getresponse()
        own, target = self._gateway.url, self._gateway.target
        headers = [
            (name, text.replace(target, own)) for name, text in response.getheaders() if name.lower() not in _HOP
        ]
        length = response.headers.get("Content-Length")
        if not _is_media(request) and self.command != "HEAD":
            whole = response.read().replace(target.encode(), own.encode())
            return self._gateway.correct(request, Answer(response.status, headers, whole))
        return Answer(
            response.status, headers, iter(lambda: response.read(_CHUNK), b""), None if length is None else int(length)
        )

    def _reply(self, request: Request, answer: Answer, fault: Fault | None) -> None:
        request.status = answer.status
        body = [answer.body] if isinstance(answer.body, bytes) else answer.body
        if fault and fault.action == "lose_answer":
            for _ in body:  # the emulator has finished when its answer ends
                pass
            self._close()
            return
        self.send_response_only(answer.status)
        for name, text in answer.headers:
            self.send_header(name, text)
        length = len(answer.body) if isinstance(answer.body, bytes) else answer.length
        if length is None:
            self.close_connection = True
            self.send_header("Connection", "close")
        elif answer.status not in (204, 304):
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(body, fault.after_bytes if fault and fault.action == "cut_download" else None)

    def _send_body(self, body: Iterable[bytes], limit: int | None) -> None:
        sent = 0
        for chunk in body:
            part = chunk if limit is None else chunk[: limit - sent]
            self.wfile.write(part)
            sent += len(part)
            if limit is not None and sent >= limit:
                break
        if limit is not None:
            self._close()

    def _close(self) -> None:
        """Close the connection, so that the client does not wait for more."""
        self.close_connection = True
        with suppress(OSError):  # The client may have closed it.
            self.connection.shutdown(socket.SHUT_RDWR)


def _is_json(headers: Message) -> bool:
    return headers.get_content_type() == "application/json"


def _is_media(request: Request) -> bool:
    """Whether the answer is the content of an object, which must not be changed."""
    return request.query.get("alt") == "media" or request.path.startswith("/download/")


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
