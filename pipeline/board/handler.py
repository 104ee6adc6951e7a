"""The base of every request handler of the board: the checks, the headers, the language, and the page of an error."""

from __future__ import annotations

from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlencode

import tornado.locale
from tornado.log import app_log
from tornado.web import HTTPError, RequestHandler

from pipeline.board.access import Access, Refused, check_origin
from pipeline.board.live import Live
from pipeline.errors import PipelineError, visible

LANGUAGES = {"en": "English", "ko": "한국어"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    # With no-referrer, browsers would not tell the origin of a form.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Checked(RequestHandler):
    """A handler that answers only those that may use the board."""

    SUPPORTED_METHODS = ("GET", "HEAD", "POST")
    needs_login = True

    @property
    def access(self) -> Access:
        """Key and names of this board."""
        access: Access = self.settings["access"]
        return access

    def set_default_headers(self) -> None:
        """Forbid what a page of the board never needs."""
        for name, text in _HEADERS.items():
            self.set_header(name, text)
        self.clear_header("Server")

    def prepare(self) -> None:
        """Refuse a request before its handler sees it."""
        self.access.check_host(self.request)
        if self.request.method not in ("GET", "HEAD"):
            check_origin(self.request, needs_mark=True)
        self.check_login()

    def check_login(self) -> None:
        """Refuse a browser without the cookie of this board."""
        if self.needs_login and not self.is_logged_in():
            raise Refused("this browser has no access yet")

    def check_xsrf_cookie(self) -> None:
        """Refuse a write without the token of a page."""
        try:
            super().check_xsrf_cookie()
        except HTTPError as error:
            raise Refused("the page with this button is out of date; open it again") from error

    def log_exception(self, typ: Any, value: BaseException | None, tb: TracebackType | None) -> None:
        """Log a fault of the board; never the query, which may have a token."""
        if not isinstance(value, (HTTPError, PipelineError)):
            app_log.error("%s %s", self.request.method, self.request.path, exc_info=(typ, value, tb))  # type: ignore[arg-type]

    def is_logged_in(self) -> bool:
        """Whether the request has the cookie of this board."""
        return self.get_signed_cookie(self.access.cookie) is not None


class Page(Checked):
    """A page for people; an exception that is the user's to solve is shown in it."""

    @property
    def live(self) -> Live:
        """What the board knows."""
        live: Live = self.settings["live"]
        return live

    async def ask(self, question: str, **values: Any) -> Any:
        """The answer of the answering process."""
        return await self.settings["questions"].ask(question, **values)

    def prepare(self) -> None:
        """Also take the token of a link, and the choice of a language."""
        token = self.get_query_argument("token", "")
        if token and self.request.method == "GET":
            self.access.check_host(self.request)
            if self.access.use(token):
                self.set_signed_cookie(self.access.cookie, "in", expires_days=None, httponly=True, samesite="Strict")
            elif not self.is_logged_in():
                raise Refused("this link was used already, or belongs to another board")
            # Not a redirect: after one from another program, browsers keep back a SameSite=Strict cookie.
            self.finish(self.render_string("welcome.html"))
            return
        super().prepare()
        language = self.get_query_argument("lang", "")
        if language in LANGUAGES and self.request.method == "GET":
            self.set_cookie("board_language", language, expires_days=365, samesite="Strict", httponly=True)
            rest = [each for each in parse_qsl(self.request.query) if each[0] != "lang"]
            # Without the path, which could begin with the name of another site: //evil.example/
            self.redirect(f"?{urlencode(rest)}")

    def head(self, *arguments: str, **named: str) -> Any:
        """The headers of the page."""
        return self.get(*arguments, **named)

    def get_user_locale(self) -> tornado.locale.Locale | None:
        """The language that was chosen; None for that of the browser."""
        chosen = self.get_cookie("board_language", "")
        return tornado.locale.get(chosen) if chosen in LANGUAGES else None

    def get_template_namespace(self) -> dict[str, Any]:
        """What every template can use."""
        return {
            **super().get_template_namespace(),
            "visible": visible,
            "languages": LANGUAGES,
            "allow_runs": self.settings["options"].allow_runs,
            "has_luigid": self.settings["options"].luigid,
            #: Only a page without a server has the style sheet in it.
            "css": "",
        }

    def write_error(self, status_code: int, **named: Any) -> None:
        """Show the error in a page: the message and the remedy, never a traceback."""
        error = named.get("exc_info", (None, None, None))[1]
        message = f"HTTP {status_code}"
        if isinstance(error, PipelineError):
            self.set_status(400 if error.code == "usage" else 409)
            message = error.words
        elif isinstance(error, Refused):
            message = self.locale.translate(error.message) % error.values
        self.finish(self.render_string("error.html", status=self.get_status(), message=message))
