"""The server of the board: its address, what every request has to pass, and which page answers which address."""

from __future__ import annotations

import asyncio
import html
import logging
import signal
import webbrowser
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from socket import socket
from threading import Thread
from typing import Any

import tornado.locale
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.log import app_log
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, StaticFileHandler

from pipeline.board import actions, pages
from pipeline.board.access import LOOPBACK, Access, new_link, private_file
from pipeline.board.handler import Checked
from pipeline.board.live import POLL_S, Live
from pipeline.board.questions import Questions
from pipeline.errors import UsageError, visible
from pipeline.settings import current_settings

_FOLDER = Path(__file__).parent
_MOST_CONNECTIONS = 256
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_MONTH = r"/months/(?P<dataset>[a-z]{1,20})(?:/(?P<month>\d{4}-\d\d))?"
_PAGES: tuple[Any, ...] = (
    (r"/", pages.Grid),
    (_MONTH, pages.Month),
    (rf"{_MONTH}/data", pages.MonthData),
    (r"/report", pages.Report),
    (r"/runs", pages.Runs),
    (r"/runs/(?P<run_id>[\w-]{1,80})", pages.Run),
    (r"/events", pages.Events),
)
#: Only with --allow-runs.
_ACTIONS: tuple[Any, ...] = ((r"/actions", actions.Choose), (r"/actions/(?P<action>[a-z]+)", actions.Action))


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

    def parse_url_path(self, url_path: str) -> str:
        """The path of the file; no file has a NUL in its name, and asking for one would be a fault."""
        if "\0" in url_path:
            raise HTTPError(404)
        return super().parse_url_path(url_path)


class _Server(HTTPServer):
    """Holds a bounded number of connections: one more closes the oldest, so that idle ones never keep others out."""

    def initialize(self, *arguments: Any, **named: Any) -> None:
        super().initialize(*arguments, **named)
        self._streams: dict[IOStream, None] = {}

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        """Serve a connection."""
        if len(self._streams) >= _MOST_CONNECTIONS:
            oldest = next(iter(self._streams))
            del self._streams[oldest]
            oldest.close()
        self._streams[stream] = None
        super().handle_stream(stream, address)

    def on_close(self, server_conn: Any) -> None:
        """Forget a connection."""
        super().on_close(server_conn)
        self._streams.pop(server_conn.stream, None)


def _application(options: Options, access: Access, questions: Questions, live: Live) -> Application:
    """All addresses of the board but those of luigid."""
    tornado.locale.load_translations(str(_FOLDER / "locale"))
    return Application(
        [*_PAGES, *(_ACTIONS if options.allow_runs else ())],
        default_handler_class=pages.NotFound,
        template_path=str(_FOLDER / "templates"),
        static_path=str(_FOLDER / "static"),
        static_handler_class=_Static,
        xsrf_cookies=True,
        xsrf_cookie_name=access.xsrf_cookie,
        xsrf_cookie_kwargs={"httponly": True, "samesite": "Strict"},
        cookie_secret=access.key,
        compress_response=True,
        # `Checked` logs what failed, without the query, which may have a token.
        log_function=lambda handler: None,
        access=access,
        questions=questions,
        live=live,
        starter=actions.Starter(current_settings().logs, live),
        options=options,
    )


async def serve(options: Options) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        UsageError: the address is invalid or in use, or the folder of logs cannot be written.
    """
    settings, loop, stopped = current_settings(), asyncio.get_running_loop(), asyncio.Event()
    _log_in_one_line()

    def stop(*_: object) -> None:
        with suppress(RuntimeError):  # A second signal, when the loop is closed.
            loop.call_soon_threadsafe(stopped.set)

    for number in STOP_SIGNALS:
        signal.signal(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    sockets = _bind(options)  # Before the key is written, which may be another board's.
    with ExitStack() as stack:
        access = Access(settings.logs, options.port, options.base, [options.address, *options.names])
        stack.enter_context(access)
        questions = Questions(settings)
        live = Live(settings.logs, questions)
        application = _application(options, access, questions, live)
        if options.luigid:
            from pipeline.board.luigid import Luigid

            live.luigid = stack.enter_context(Luigid(settings.logs))
            application.add_handlers(".*", live.luigid.handlers)
        server = _Server(
            application,
            max_body_size=1 << 20,  # A request of a page is small; a worker sends its tasks to luigid.
            max_header_size=1 << 14,
            idle_connection_timeout=60,  # Also the time for the headers of a request.
            body_timeout=30,
        )
        server.add_sockets(sockets)
        live.ask()  # The answer is there when the browser is.
        if not all(ip_address(each.getsockname()[0].partition("%")[0]).is_loopback for each in sockets):
            app_log.warning(
                "%s: others in this network can reach the board and read what is sent, because it is not encrypted",
                options.address,
            )
        if not options.is_quiet:
            print(
                f"The board: {new_link(settings.logs, options.port)}\n"
                f"The link can be used once; for another: pipeline board --link --port {options.port}",
                flush=True,
            )
            if options.opens_browser:
                page = access.path.with_suffix(".html")
                stack.callback(page.unlink, missing_ok=True)
                _open_in_browser(new_link(settings.logs, options.port), page)
        await stopped.wait()
        server.stop()
        live.stop()
        await questions.close()
        await server.close_all_connections()
        while live.streams:  # A stream that is cut off instead would be logged.
            await asyncio.sleep(POLL_S)
    for number in STOP_SIGNALS:  # Python restores the default action when it ends, and that would kill the board.
        signal.signal(number, signal.SIG_IGN)


def _bind(options: Options) -> list[socket]:
    """The sockets of the address."""
    try:
        return bind_sockets(options.port, options.address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "an invalid name"
        raise UsageError(
            f"{options.address}, port {options.port}: {reason}; allowed is an address of this machine (--address) and "
            "a free port (--port N), above 1023 for most users; if a board runs there, this prints its link: "
            "pipeline board --link"
        ) from error


def _open_in_browser(link: str, page: Path) -> None:
    """Open the link through a page, because the link itself would stand in the list of processes."""
    with private_file(page) as file:
        file.write(f'<meta http-equiv="refresh" content="0; url={html.escape(link)}">'.encode())
    # Some browsers return only when they are closed.
    Thread(target=webbrowser.open, args=(page.absolute().as_uri(),), daemon=True).start()


def _log_in_one_line() -> None:
    """Log warnings to standard error, without control characters."""
    handler, formatter = logging.StreamHandler(), logging.Formatter("pipeline: %(message)s")
    handler.format = lambda record: visible(formatter.format(record))  # type: ignore[method-assign]
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
