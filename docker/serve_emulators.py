"""Emulators of Cloud Storage (port 4443) and BigQuery (port 9050), with a bucket `taxi`, until a signal comes.

They are those of the tests, behind the gateways that make up for what they lack.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parent / "tests"))

from bigquery_shim import BigQueryGateway
from emulators import bigquery_emulator, gcs_emulator
from gateway import Fault, Gateway, Handler, Request
from gcs_shim import GcsGateway

from pipeline.sample.site import Server

HOST = "emulators"
#: All of the stack's network.
ADDRESS = "0.0.0.0"  # noqa: S104


class _OneAtATime(Handler):
    """Asks the emulator one question at a time: BigQuery's answers two at once with each other's rows."""

    _turn = threading.Lock()

    def _obey(self, request: Request, body: Iterable[bytes], fault: Fault | None) -> None:
        whole = list(body)  # Nobody waits for a client that is slow to ask.
        with self._turn:
            super()._obey(request, whole, fault)


class _Reachable(Gateway):
    """A gateway that other containers reach, at a port of which they know."""

    port: int
    handler: type[Handler] = Handler

    def __enter__(self) -> Gateway:
        self._server = Server((ADDRESS, self.port), cast("Any", self))
        self._server.RequestHandlerClass = self.handler
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


class _Gcs(_Reachable, GcsGateway):
    port = 4443


class _BigQuery(_Reachable, BigQueryGateway):
    port = 9050
    handler = _OneAtATime


def main() -> None:
    """Serve until told to stop."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with gcs_emulator() as gcs, bigquery_emulator(gcs.root) as bigquery:
        gcs.make_bucket("taxi")
        with _Gcs(gcs.url), _BigQuery(bigquery):
            print("emulators: ready", flush=True)  # noqa: T201
            while not ended.wait(0.5):
                pass


if __name__ == "__main__":
    main()
