"""luigid in the board's process and at its port: the API for workers, the visualiser, metrics, and the state of steps.

Promise: no web page that the user visits reaches luigid, which itself obeys every request. A browser needs the board's
login, and a page of the board that sends the request. Programs need no login, as workers have none: any program that
can connect can run tasks, as with luigid itself.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from collections.abc import Callable, Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import luigi.server
from luigi.metrics import MetricsCollectors
from luigi.task_status import DISABLED, FAILED, PENDING, RUNNING
from tornado.httputil import split_host_and_port
from tornado.ioloop import PeriodicCallback
from tornado.web import HTTPError, RequestHandler, StaticFileHandler

from pipeline.runs.scheduler import StepScheduler
from pipeline.tasks.luigi_options import prepare_luigi

#: For `max_body_size` of the server: a worker sends the ids of all steps of a run at once, 60 bytes each.
BODY_LIMIT_BYTES = 4_000_000
#: Dead workers are looked for, and the state is saved, as often.
_INTERVAL_S = 60
_VISUALISER = Path(luigi.server.__file__).parent / "static" / "visualiser"
#: What programs may ask by GET. A browser sends a GET without a mark of its origin if the address is not loopback.
_QUESTIONS = ("resource_list", "task_list", "worker_list", "fetch_error")
#: What luigid may say about a step, the most important first: a step of the zones can be known twice.
_STATUSES = {RUNNING: "RUNNING", FAILED: "FAILED", DISABLED: "FAILED", PENDING: "PENDING"}
_STEP = re.compile(r"(Download|Conform|Load|Mart)(Zones)?")


class StepState(NamedTuple):
    """What luigid knows of a step."""

    status: str
    message: str
    #: From 0 to 1, if it is known.
    fraction: float | None


class Overlay(NamedTuple):
    """What luigid knows: by dataset, month (empty for the zones) and step; and the number of its workers."""

    steps: dict[tuple[str, str, str], StepState]
    workers: int


class Luigid:
    """A luigid; `handlers` are for the board's application, `start` and `stop` are called in its loop."""

    def __init__(self, logs: Path, allowed_hosts: Collection[str], is_logged_in: Callable[[RequestHandler], bool]):
        self.allowed_hosts, self.is_logged_in = allowed_hosts, is_logged_in
        self._folder = logs / "board"
        prometheus = find_spec("prometheus_client") is not None
        self.scheduler = StepScheduler(
            state_path=str(self._folder / "luigid.pickle"),
            metrics_collector=MetricsCollectors.prometheus if prometheus else MetricsCollectors.default,
        )
        self._callback = PeriodicCallback(self._tick, _INTERVAL_S * 1000)
        own: dict[str, Any] = {"luigid": self}
        #: The page of the visualiser finds the API by a relative address.
        self.handlers: list[tuple[str, type[RequestHandler], dict[str, Any]]] = [
            (r"/api/(\w+)", _Api, own),
            (r"/metrics", _Metrics, own),
            (r"/luigid/?", _Entrance, own),
            (r"/static/visualiser/(.*)", _Visualiser, own),
        ]

    def start(self) -> None:
        """Load the state of the last process."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self.scheduler.load()
        self._callback.start()

    def stop(self) -> None:
        """Save the state."""
        self._callback.stop()
        self.scheduler.dump()

    def overlay(self) -> Overlay:
        """The running, waiting and failed steps; a failed one may have been done since, without luigid."""
        self.scheduler.prune()
        state = self.scheduler._state
        steps: dict[tuple[str, str, str], StepState] = {}
        for status, shown in _STATUSES.items():
            for task in state.get_active_tasks_by_status(status):
                match, params = _STEP.fullmatch(str(task.family)), task.params
                if not match or (status == PENDING and not task.stakeholders):
                    continue
                dataset, month = ("zones", "") if match[2] else (params.get("dataset"), params.get("month"))
                percent = task.progress_percentage
                fraction = min(1.0, max(0.0, percent / 100)) if isinstance(percent, (int, float)) else None
                known = StepState(shown, str(task.status_message or ""), fraction)
                steps.setdefault((str(dataset), str(month), match[1].lower()), known)
        return Overlay(steps, len(list(state.get_active_workers())))

    def _tick(self) -> None:
        self.scheduler.prune()
        self.scheduler.dump()


def add_luigid(
    logs: Path,
    allowed_hosts: Collection[str],
    is_logged_in: Callable[[RequestHandler], bool],
    luigi_options: Mapping[str, Mapping[str, str]],
) -> Luigid:
    """A luigid that keeps its state below `logs`.

    `allowed_hosts` are the names, without port, under which it may be addressed. `luigi_options` are those of
    `pipeline.tasks.luigi_options.default_options`, which imports pyarrow to know them; luigi.cfg overrides them.
    """
    prepare_luigi(luigi_options)
    prepare_luigi(_OPTIONS)
    logging.getLogger("luigi.scheduler").setLevel(logging.WARNING)
    return Luigid(logs, allowed_hosts, is_logged_in)


#: docs/luigid.cfg gives the reasons.
_OPTIONS = {
    "scheduler": {"worker_disconnect_delay": "30"},
    "prometheus": {"use_task_family_in_labels": "true", "task_parameters_to_use_in_labels": '["dataset"]'},
}


class _Guarded(RequestHandler):
    """The checks in front of each of luigid's handlers."""

    csp = "default-src 'none'; frame-ancestors 'none'"
    #: The values of Sec-Fetch-Site that are allowed; it is "none" where the user enters the address.
    sites: tuple[str, ...] = ("same-origin",)

    def initialize(self, **options: Any) -> None:
        self._luigid: Luigid = options["luigid"]
        self._scheduler = self._luigid.scheduler

    def set_default_headers(self) -> None:
        self.set_header("Content-Security-Policy", self.csp)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")

    def check_xsrf_cookie(self) -> None:
        """Nothing: workers have no cookies, and `prepare` refuses other sites."""

    def prepare(self) -> None:
        host, headers = self.request.host.lower(), self.request.headers
        if split_host_and_port(host)[0].strip("[]") not in self._luigid.allowed_hosts:
            raise HTTPError(403, reason="Unknown host")
        if len(self.request.body) > BODY_LIMIT_BYTES:
            raise HTTPError(413)
        site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
        if site is None and origin is None and self.is_for_programs():
            return
        if site not in (None, *self.sites) or (origin is not None and origin.lower().partition("://")[2] != host):
            raise HTTPError(403, reason="Cross-site request")
        if not self._luigid.is_logged_in(self):
            raise HTTPError(403, reason="Not logged in; use the link of: pipeline board --link")

    def is_for_programs(self) -> bool:
        """Whether the request, which has no mark of a browser, needs no login."""
        return True


class _Api(_Guarded, luigi.server.RPCHandler):
    def is_for_programs(self) -> bool:
        # A browser marks every POST, but no GET of an address that is neither loopback nor HTTPS.
        return self.request.method == "POST" or self.path_args[0] in _QUESTIONS

    def get(self, method: str) -> None:
        try:
            super().get(method)
        except (LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
            raise HTTPError(400, "%r", error) from error

    post = get


class _Metrics(_Guarded, luigi.server.MetricsHandler):
    pass


class _Entrance(_Guarded):
    sites = ("same-origin", "none")

    def get(self) -> None:
        self.redirect("/static/visualiser/index.html")


def _visualiser_csp() -> str:
    """The board's policy, with exceptions for the styles of the visualiser, and for the one script in its page."""
    page = (_VISUALISER / "index.html").read_text(encoding="utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(["'self'", *(f"'sha256-{digest}'" for digest in digests)])
    return (
        f"default-src 'self'; script-src {allowed}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class _Visualiser(_Guarded, StaticFileHandler):
    csp = _visualiser_csp()
    sites = ("same-origin", "none")

    def initialize(self, **options: Any) -> None:  # type: ignore[override]
        super().initialize(**options)
        StaticFileHandler.initialize(self, str(_VISUALISER))
