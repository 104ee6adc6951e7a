"""Who may use the board. Every request passes `check_host`; every page needs the cookie that a one-time link gives.

A web page that the user visits must not reach the board: a foreign name in Host (DNS rebinding) is refused, the cookie
is SameSite=Strict, and a write needs the XSRF token and a request that the browser itself marks as same-origin.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from tornado.httputil import HTTPServerRequest, split_host_and_port
from tornado.web import HTTPError

from pipeline.errors import UsageError

#: A browser on this machine uses one of these names.
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Refused(HTTPError):
    """A request that is not answered; the message, a text of the languages, and its values are for the user."""

    def __init__(self, message: str, **values: str) -> None:
        super().__init__(403)
        self.message, self.values = message, values


class Access:
    """The key of a running board, in a file that only its user can read, and the links that were used.

    The board holds a lock on the file while it runs: without the lock, the file was left by a board that was killed.
    """

    def __init__(self, logs: str, port: int, base: str, names: Iterable[str]) -> None:
        self.names, self.base = {*LOOPBACK, *(name.lower() for name in names)}, base
        self.path, self.key = _key_file(logs, port), secrets.token_urlsafe(32)
        #: Cookies of boards on other ports of this machine have other names.
        self.cookie, self.xsrf_cookie = f"board_{port}", f"board_xsrf_{port}"
        self._used: set[str] = set()

    def __enter__(self) -> Access:
        """Write the file.

        Raises:
            UsageError: the file cannot be written, or a board at the same port of another address has it.
        """
        draft = self.path.with_suffix(".new")
        try:
            if other := _read(self.path):
                raise UsageError(
                    f"a board with these logs runs at this port already, at {other['base']}; allowed is another port "
                    "(--port N); this prints its link: pipeline board --link"
                )
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = private_file(draft)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.write(json.dumps({"key": self.key, "base": self.base}).encode())
            self._file.flush()
            draft.replace(self.path)
        except OSError as error:
            raise UsageError(
                f"{self.path}: {error.strerror}; the board keeps its key there, so its user must be allowed to write "
                "to the folder of logs ([pipeline] logs)"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError), self._file:
            # The folder may have been deleted, and the file be another board's.
            if os.path.samestat(os.fstat(self._file.fileno()), self.path.stat()):
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
            raise Refused(
                "%(name)s is not a name of this board; allowed are %(allowed)s, and names that --allow-host adds",
                name=repr(name),
                allowed=", ".join(sorted(self.names)),
            )


def check_origin(request: HTTPServerRequest, *sites: str, needs_mark: bool = False) -> bool:
    """Refuse a request that does not come from a page of the board; returns whether the browser marked its origin.

    Every browser marks a write. `sites` are the values of Sec-Fetch-Site that are allowed besides `same-origin`.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    # Without the scheme, which a proxy with TLS changes.
    is_own = origin is None or origin.lower().partition("://")[2] == request.host.lower()
    is_marked = site is not None or origin is not None
    if not is_own or site not in (None, "same-origin", *sites) or (needs_mark and not is_marked):
        raise Refused("the request does not come from a page of this board; open the page and use its buttons")
    return is_marked


def private_file(path: Path) -> BinaryIO:
    """A new file that only this user can read, in place of an old one."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def new_link(logs: str, port: int) -> str:
    """A link, to be used once, for the board that runs at this port.

    Raises:
        UsageError: none runs there, or it belongs to another user.
    """
    path = _key_file(logs, port)
    try:
        board = _read(path)
    except OSError as error:
        message = f"{path}: {error.strerror}; only the user who runs the board at port {port} can make a link"
        raise UsageError(message) from error
    if not board:
        raise UsageError(f"no board with these logs ({logs}) runs at port {port}; start it with: pipeline board")
    return f"{board['base']}/?token={_token(board['key'], secrets.token_urlsafe(8))}"


def _key_file(logs: str, port: int) -> Path:
    return Path(logs) / "board" / f"{port}.key"


def _read(path: Path) -> dict[str, str] | None:
    """The key and the address of the board that holds the file; None if no running board does."""
    with suppress(FileNotFoundError, NotADirectoryError), path.open() as file:
        if os.getuid() not in (0, os.fstat(file.fileno()).st_uid):
            raise PermissionError(1, "it belongs to another user")
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            values: dict[str, str] = json.load(file)
            return values
    return None


def _token(key: str, nonce: str) -> str:
    return f"{nonce}.{hmac.digest(key.encode(), nonce.encode(), 'sha256').hex()[:32]}"
