"""What receives the output of a run: a webhook, a mail server, and a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import socketserver
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from conftest import Folder

#: The secret part of an address; no output may contain it.
SECRET = "xoxb-4711"
_PATIENCE_S = 60


@contextmanager
def webhook(status: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that accepts posts: its address, and the list of what it received."""
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Nothing."""

    with serving(HTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield f"http://127.0.0.1:{port}/{SECRET}", got


@contextmanager
def serving(server: socketserver.TCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(_PATIENCE_S)


class Mail(socketserver.StreamRequestHandler):
    """A small SMTP server, which appends each mail to `got` of its server."""

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline().decode().strip():
            if line.upper() == "DATA":
                self.wfile.write(b"354 go on\r\n")
                text = b"".join(iter(self.rfile.readline, b".\r\n")).decode()
                self.server.got.append(text)  # type: ignore[attr-defined]
            self.wfile.write(b"250 fine\r\n")
            if line.upper() == "QUIT":
                return


class Terminal:
    """A command in its own terminal of 80 columns, and its output."""

    def __init__(self, folder: Folder, *command: str) -> None:
        self._end, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        # The first process of a session that opens a terminal receives its Ctrl-C.
        take = "import os, sys; os.open(os.ttyname(0), os.O_RDWR); os.execv(sys.argv[1], sys.argv[1:])"
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("PIPELINE_", "NO_COLOR"))}
        self.process = subprocess.Popen(
            [sys.executable, "-c", take, str(Path(sys.executable).parent / command[0]), *command[1:]],
            cwd=folder.path,
            env={**kept, "PIPELINE_SOURCE": folder.source, "TERM": "xterm-256color", "COLUMNS": "80"},
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
        )
        os.close(inner)
        self._shown = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # Linux reports the end of a terminal as an error.
            while some := os.read(self._end, 1 << 16):
                self._shown += some

    def type(self, keys: bytes) -> None:
        os.write(self._end, keys)

    def ended(self) -> int:
        code = self.process.wait(_PATIENCE_S)
        self._thread.join(_PATIENCE_S)
        os.close(self._end)
        return code

    @property
    def raw(self) -> str:
        return self._shown.decode(errors="replace")

    @property
    def lines(self) -> list[str]:
        """All lines ever shown, without colours; one that was drawn over is there as often as it was drawn."""
        return re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", self.raw.replace("\x1b[1A", "\n")).replace("\r", "\n").split("\n")
