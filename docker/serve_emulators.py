"""Run emulators of Cloud Storage (port 4443) and BigQuery (port 9050) with a bucket `taxi`, until a signal.

They are the emulators of the tests, with their gateways.
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
#: All networks of the container.
ADDRESS = "0.0.0.0"  # noqa: S104


class _OneAtATime(Handler):
    """Forwards one request at a time: BigQuery's emulator mixes the rows of concurrent answers."""

    _one = threading.Lock()

    def _handle(self, request: Request, body: Iterable[bytes], fault: Fault | None) -> None:
        whole = list(body)  # Read first, so that other requests do not wait for a slow client.
        with self._one:
            super()._handle(request, whole, fault)


class _Reachable(Gateway):
    """A gateway on a fixed port that other containers can connect to."""

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
    """Serve until SIGINT or SIGTERM."""
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
