"""The faults of a download that the site produces on demand, for tests.

A fault is for certain paths, starts after `skip` matching requests, and happens `times` times.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from pipeline.errors import UsageError

#: The kinds of faults, and what their values mean. A status such as 503 is also a kind.
KINDS = {
    "cut": "close the connection after VALUE bytes of the body (default: half of it)",
    "drop": "close the connection without a response",
    "slow": "send VALUE bytes a second (default 10,000)",
    "delay": "wait VALUE seconds before the response (default 1)",
    "length": "announce VALUE bytes too many, or too few if negative (default 1000)",
    "corrupt": "flip the byte at VALUE (default: the middle of the file)",
    "truncate": "pretend that the file has VALUE bytes (default: half)",
    "html": "send a page instead of the file, with status 200",
    "ignore_range": "send the whole file, also when a part was requested",
    "bare": "send no ETag, Last-Modified or Accept-Ranges, and the whole file",
    "republished": "serve other bytes under another ETag (for all later requests, unless `times` is given)",
    "STATUS": "respond with this status, such as 403 or 503; VALUE seconds as Retry-After",
}
#: Kinds that last unless their number of times is given.
_LASTING = ("republished", "bare")


@dataclass
class Fault:
    """One kind of failure for some paths."""

    path: str
    kind: str
    value: float | None = None
    #: How often it will still happen; infinite for lasting faults.
    times: float = 1
    skip: int = 0

    @property
    def status(self) -> int | None:
        """The status to respond with, for a fault that is a status."""
        return int(self.kind) if self.kind.isdigit() else None

    def matches(self, path: str) -> bool:
        """Whether the fault's glob matches the path or the name at its end."""
        return fnmatchcase(path, self.path) or fnmatchcase(PurePosixPath(path).name, self.path)


@dataclass
class Faults:
    """The faults of one site, in the order of their addition."""

    _faults: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(
        self, path: str, kind: str | int, value: float | None = None, *, times: float | None = None, skip: int = 0
    ) -> None:
        """Let requests for `path` (a glob for the whole path or its last part) fail; `math.inf` times is always.

        Without `times` a fault happens once, except those that change the site itself (`republished`, `bare`).

        Raises:
            UsageError: the kind is unknown.
        """
        kind = str(kind)
        if kind not in KINDS and not (kind.isdigit() and 400 <= int(kind) <= 599):
            allowed = ", ".join([*KINDS][:-1])
            raise UsageError(f"{kind!r} is not a fault; write a status from 400 to 599 or one of {allowed}")
        if times is None:
            times = math.inf if kind in _LASTING else 1
        with self._lock:
            self._faults.append(Fault(path, kind, value, times, skip))

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults.clear()

    def take(self, path: str) -> list[Fault]:
        """The faults of this request: all lasting ones, and the first of the others, which is counted as happened."""
        with self._lock:
            taken: list[Fault] = []
            for fault in (fault for fault in self._faults if fault.matches(path)):
                if fault.skip:
                    fault.skip -= 1
                elif math.isinf(fault.times) or (fault.times > 0 and all(math.isinf(other.times) for other in taken)):
                    taken.append(replace(fault))
                    fault.times -= 1
            return taken


def add_fault(faults: Faults, text: str) -> None:
    """Add a fault written as KIND:GLOB[:VALUE][:times=N][:skip=N], for instance cut:yellow*2024-01*:50000:times=2.

    Raises:
        UsageError: the text has another form, or the kind is unknown.
    """
    kind, _, rest = text.partition(":")
    path, *parts = rest.split(":")
    plain = [part for part in parts if "=" not in part]
    named = dict(part.split("=", 1) for part in parts if "=" in part)
    try:
        if not path or len(plain) > 1 or not set(named) <= {"times", "skip"}:
            raise ValueError
        value = float(plain[0]) if plain else None
        times, skip = float(named["times"]) if "times" in named else None, int(named.get("skip", 0))
    except ValueError as error:
        raise UsageError(f"{text!r} is not a fault; write KIND:GLOB[:VALUE][:times=N][:skip=N]") from error
    faults.add(path, kind, value, times=times, skip=skip)
