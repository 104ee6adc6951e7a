"""Who may use the board. Every request passes `check_host`; every page needs the cookie that a one-time link gives.

A web page that the user visits must not reach the board: a foreign name in Host (DNS rebinding) is refused, the cookie
is SameSite=Strict, and a write needs the XSRF token and a request that the browser itself marks as same-origin.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest, split_host_and_port
from tornado.web import HTTPError

from pipeline.errors import UsageError

#: A browser on this machine uses one of these names.
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Refused(HTTPError):
    """A request that is not answered; the message is for its user."""

    def __init__(self, message: str) -> None:
        super().__init__(403)
        self.message = message


class Access:
    """The key of a running board, in a file that only its user can read, and the links that were used."""

    def __init__(self, logs: str, port: int, names: Iterable[str] = ()) -> None:
        self.names, self._port = {*LOOPBACK, *(name.lower() for name in names)}, port
        self.path = key_file(logs, port)
        self._used: set[str] = set()
        self.key = secrets.token_urlsafe(32)
        #: Cookies of boards on other ports of this machine have other names.
        self.cookie, self.xsrf_cookie = f"board_{port}", f"board_xsrf_{port}"

    def __enter__(self) -> Access:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w") as stream:
            stream.write(self.key)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            if self.path.read_text() == self.key:  # Else a newer board has written it.
                self.path.unlink()

    def use(self, token: str) -> bool:
        """Whether the token of a link is valid; it is valid once."""
        nonce = token.partition(".")[0]
        if nonce in self._used or not hmac.compare_digest(token.encode(), _token(self.key, nonce).encode()):
            return False
        self._used.add(nonce)
        return True

    def check_host(self, request: HTTPServerRequest) -> None:
        """Refuse a request for another name than those of the board."""
        name = split_host_and_port(request.host.lower())[0].strip("[]")
        if name not in self.names:
            allowed = ", ".join(sorted(self.names))
            raise Refused(
                f"{name!r} is not a name of this board; allowed are {allowed}, and names that --allow-host adds"
            )

    def check_write(self, request: HTTPServerRequest) -> None:
        """Refuse a write that does not come from one of the board's pages; every browser marks where it comes from."""
        site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
        is_own = urlsplit(origin).netloc.lower() == request.host.lower() if origin else site is not None
        if not is_own or site not in (None, "same-origin"):
            raise Refused("the request does not come from a page of this board; open the page and use its buttons")


def key_file(logs: str, port: int) -> Path:
    """The file with the key of the board at this port."""
    return Path(logs) / "board" / f"{port}.key"


def new_link(logs: str, port: int, base: str) -> str:
    """A link, to be used once, for the board that runs at this port.

    Raises:
        UsageError: none runs there, or it belongs to another user.
    """
    path = key_file(logs, port)
    try:
        key = path.read_text()
    except OSError as error:
        raise UsageError(
            f"no board runs at port {port} with these logs ({path}: {error.strerror}); start it with: pipeline board"
        ) from error
    return link_of(key, base)


def link_of(key: str, base: str) -> str:
    """The address with a new token."""
    return f"{base}/?token={_token(key, secrets.token_urlsafe(8))}"


def _token(key: str, nonce: str) -> str:
    return f"{nonce}.{hmac.digest(key.encode(), nonce.encode(), 'sha256').hex()[:32]}"
