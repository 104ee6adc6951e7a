"""`python luigid_alone.py LOGS PORT`: the board's luigid in a small application, whose login is the cookie `in=yes`."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from pipeline.board.luigid import BODY_LIMIT_BYTES, Overlay, add_luigid
from pipeline.tasks.luigi_options import default_options


class _Board(RequestHandler):
    def get(self) -> None:
        overlay: Overlay = self.settings["luigid"].overlay()
        steps = [[*key, state.status, state.message, state.fraction] for key, state in overlay.steps.items()]
        self.write({"steps": steps, "workers": overlay.workers})


def _is_logged_in(handler: RequestHandler) -> bool:
    return handler.get_cookie("in") == "yes"


async def main(logs: str, port: str) -> None:
    luigid = add_luigid(Path(logs), {"127.0.0.1", "localhost"}, _is_logged_in, default_options())
    application = Application([(r"/", _Board), *luigid.handlers], xsrf_cookies=True, luigid=luigid)
    server = HTTPServer(application, max_body_size=BODY_LIMIT_BYTES)
    luigid.start()
    server.listen(int(port), "127.0.0.1")
    sys.stderr.write("Scheduler starting up\n")
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    luigid.stop()


asyncio.run(main(*sys.argv[1:]))
