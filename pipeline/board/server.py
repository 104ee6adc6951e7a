"""The server of the board: its address, what every request has to pass, and which page answers which address."""

from __future__ import annotations

import asyncio
import html
import logging
import os
import signal
import sys
import webbrowser
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tornado.locale
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.log import app_log
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler, StaticFileHandler

from pipeline.board import actions, pages
from pipeline.board.access import LOOPBACK, Access, link_of
from pipeline.board.handler import Checked
from pipeline.board.live import Live
from pipeline.board.questions import Questions
from pipeline.errors import visible
from pipeline.settings import current_settings

_FOLDER = Path(__file__).parent
#: A request of a page is small; a worker sends its tasks to luigid.
_MOST_BODY_BYTES, _MOST_HEADER_BYTES = 1 << 20, 1 << 14
_MOST_CONNECTIONS = 256


@dataclass(frozen=True)
class Options:
    """The options of `pipeline board`; `names` are further names under which browsers and workers reach it."""

    address: str = "127.0.0.1"
    port: int = 8083
    names: tuple[str, ...] = ()
    allow_runs: bool = False
    luigid: bool = False
    is_quiet: bool = False
    opens_browser: bool = False

    @property
    def base(self) -> str:
        """The address for the browser of this machine."""
        host = self.address if self.address not in ("0.0.0.0", "::") else LOOPBACK[0]  # noqa: S104 - only compared.
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


class _Static(Checked, StaticFileHandler):
    """Style sheet and script, which are the same for everyone."""

    needs_login = False


class _Server(HTTPServer):
    """Holds a bounded number of connections."""

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        """Close a connection that is one too many."""
        if len(self._connections) >= _MOST_CONNECTIONS:
            stream.close()
        else:
            super().handle_stream(stream, address)


def application(options: Options, access: Access, questions: Questions, live: Live, **extra: Any) -> Application:
    """All addresses of the board."""
    tornado.locale.load_translations(str(_FOLDER / "locale"))
    month = r"/(?P<dataset>[a-z]{1,20})(?:/(?P<month>\d{4}-\d\d))?"
    routes: list[Any] = [
        (r"/", pages.Grid),
        (rf"/months{month}", pages.Month),
        (r"/runs", pages.Runs),
        (r"/runs/(?P<run_id>[\w-]{1,80})", pages.Run),
        (r"/events", pages.Events),
        *([(r"/actions/(?P<action>[a-z]+)", actions.Action)] if options.allow_runs else []),
    ]
    return Application(
        [*extra.pop("handlers", ()), *routes],
        default_handler_class=pages.NotFound,
        template_path=str(_FOLDER / "templates"),
        static_path=str(_FOLDER / "static"),
        static_handler_class=_Static,
        xsrf_cookies=True,
        xsrf_cookie_name=access.xsrf_cookie,
        xsrf_cookie_kwargs={"httponly": True, "samesite": "Strict"},
        cookie_secret=access.key,
        compress_response=True,
        log_function=_log_request,
        access=access,
        questions=questions,
        live=live,
        options=options,
        **extra,
    )


async def serve(options: Options) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code."""
    logging.basicConfig(format="pipeline: %(message)s", level=logging.WARNING)
    settings, stopped = current_settings(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        sockets = bind_sockets(options.port, options.address)
    except OSError as error:
        print(
            f"pipeline: {options.address}:{options.port}: {error.strerror}; allowed is a free port (--port N) of an "
            "address of this machine; if a board runs there, this prints its link: pipeline board --link",
            file=sys.stderr,
        )
        return 2
    with Access(settings.logs, options.port, [options.address, *options.names]) as access, ExitStack() as stack:
        questions = Questions(settings)
        live = Live(settings.logs, questions)
        extra: dict[str, Any] = {}
        if options.luigid:
            from pipeline.board.luigid import Luigid

            luigid = stack.enter_context(Luigid(settings.logs))
            extra["handlers"], live.luigid = luigid.handlers, luigid
        server = _Server(
            application(options, access, questions, live, **extra),
            max_body_size=_MOST_BODY_BYTES,
            max_header_size=_MOST_HEADER_BYTES,
            idle_connection_timeout=120,
            body_timeout=30,
        )
        server.add_sockets(sockets)
        live.start()
        _tell(options, access, stack)
        await stopped.wait()
        server.stop()
        live.stop()
        await questions.close()
        await server.close_all_connections()
    return 0


def _tell(options: Options, access: Access, stack: ExitStack) -> None:
    """Print the link, and open it in a browser."""
    if options.is_quiet:
        return
    print(
        f"The board: {link_of(access.key, options.base)}\nThe link can be used once; for another: pipeline board --link"
    )
    if options.address not in LOOPBACK:
        print("Others in this network can read what is sent, because it is not encrypted.", file=sys.stderr)
    sys.stdout.flush()
    if options.opens_browser:
        # Not the link itself, which would stand in the list of processes.
        file = access.path.with_suffix(".html")
        stack.callback(file.unlink, missing_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            stream.write(
                f'<meta http-equiv="refresh" content="0; url={html.escape(link_of(access.key, options.base))}">'
            )
        webbrowser.open(file.absolute().as_uri())


def _log_request(handler: RequestHandler) -> None:
    """Log what failed here; never the query, which may have a token."""
    if handler.get_status() >= 500:
        request = handler.request
        app_log.error(visible(f"{handler.get_status()} {request.method} {request.path}"))
