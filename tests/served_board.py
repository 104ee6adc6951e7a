"""A real board in a process of its own, and a client that has its link."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlencode

import requests
from conftest import Folder

PATIENCE_S = 60


class ServedBoard:
    """A running board, and a session that may use it."""

    def __init__(self, folder: Folder, port: int, process: subprocess.Popen[str]) -> None:
        self.folder, self.port, self.process = folder, port, process
        self.url = f"http://127.0.0.1:{port}"
        self.session = requests.Session()
        link = folder.pipeline("board", "--link", "--port", str(port))
        assert link.returncode == 0, link.stderr
        assert self.session.get(link.stdout.strip(), timeout=PATIENCE_S).ok

    def get(self, path: str, **query: Any) -> requests.Response:
        """A page, in English."""
        headers = {"Accept-Language": "en"}
        return self.session.get(self.url + path, params=query, headers=headers, timeout=PATIENCE_S)

    def post(self, path: str, *, follow: bool = False, **fields: Any) -> requests.Response:
        """Send a form, as the page that has it does."""
        self.get("/actions", action="latest")  # This page has a form, and sets the cookie of its token.
        token = next((each.value for each in self.session.cookies if "xsrf" in each.name), "")
        headers = {"Origin": self.url, "Sec-Fetch-Site": "same-origin", "Accept-Language": "en"}
        return self.session.post(
            self.url + path,
            data={"_xsrf": token, **fields},
            headers=headers,
            timeout=PATIENCE_S,
            allow_redirects=follow,
        )

    def history(self) -> list[dict[str, Any]]:
        """The runs, newest first."""
        done = self.folder.pipeline("history", "--json")
        assert done.returncode == 0, done.stderr
        runs: list[dict[str, Any]] = json.loads(done.stdout)
        return runs

    @contextmanager
    def events(self, **query: str) -> Iterator[Events]:
        """The stream of a page."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        cookies = "; ".join(f"{each.name}={each.value}" for each in self.session.cookies)
        connection.request("GET", f"/events?{urlencode(query)}", headers={"Cookie": cookies, "Accept-Language": "en"})
        answer = connection.getresponse()
        assert connection.sock is not None
        events = Events(answer)
        try:
            yield events
        finally:
            connection.sock.shutdown(socket.SHUT_RDWR)
            events.thread.join(PATIENCE_S)
            connection.close()


class Events:
    """The server-sent events of a stream, as they come."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        #: Name, data, and when it came (as of `time.time`).
        self.all: list[tuple[str, Any, float]] = []
        self.thread = threading.Thread(target=self._listen, args=(answer,), daemon=True)
        self.thread.start()

    def _listen(self, answer: http.client.HTTPResponse) -> None:
        name = ""
        with suppress(OSError, http.client.HTTPException):  # Closed by the test.
            for line in iter(answer.readline, b""):
                field, _colon, text = line.decode().rstrip("\n").partition(": ")
                if field == "event":
                    name = text
                elif field == "data":
                    self.all.append((name, json.loads(text), time.time()))

    def until(self, name: str, is_wanted: Callable[[Any], bool] = lambda data: True) -> tuple[Any, float]:
        """Wait for such an event; returns its data, and when it came."""

        def wanted() -> tuple[Any, float] | None:
            return next(((data, at) for each, data, at in [*self.all] if each == name and is_wanted(data)), None)

        return until(wanted)


def until(condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """Wait until the condition is true; returns its value."""
    end = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.05)
    return value


def free_port() -> int:
    """A port that no program uses now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def served_board(folder: Folder, *options: str) -> Iterator[ServedBoard]:
    """A board of this folder, until the end of the block."""
    port = free_port()
    process = folder.start("pipeline", "board", "--no-open", "--port", str(port), *options)
    try:
        assert process.stdout is not None
        assert "/?token=" in process.stdout.readline(), process.stderr and process.stderr.read()
        yield ServedBoard(folder, port, process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            _out, err = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            _out, err = process.communicate()
        assert "Traceback" not in err, err
