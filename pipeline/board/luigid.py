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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import luigi.server
from luigi.metrics import MetricsCollectors
from luigi.task_status import DISABLED, FAILED, PENDING, RUNNING
from tornado.ioloop import PeriodicCallback
from tornado.web import HTTPError, StaticFileHandler

from pipeline.board.access import Refused, check_origin
from pipeline.board.handler import Checked
from pipeline.errors import cut
from pipeline.runs.scheduler import StepScheduler
from pipeline.tasks.luigi_options import prepare_luigi

#: luigi.cfg overrides these; docs/luigid.cfg gives the reasons.
_OPTIONS = {
    "scheduler": {"worker_disconnect_delay": "30"},
    "prometheus": {"use_task_family_in_labels": "true", "task_parameters_to_use_in_labels": '["dataset"]'},
}
#: Dead workers are looked for, and the state is saved, as often.
_INTERVAL_S = 60
_VISUALISER = Path(luigi.server.__file__).parent / "static" / "visualiser"
#: What programs may ask by GET. A browser sends a GET without a mark of its origin if the address is not loopback.
_QUESTIONS = ("resource_list", "task_list", "worker_list", "fetch_error")
#: What luigid may say about a step, the most important first: a step of the zones can be known twice.
_STATUSES = {RUNNING: "running", FAILED: "failed", DISABLED: "failed", PENDING: "queued"}
_STEP = re.compile(r"(Download|Conform|Load|Mart)(Zones)?")


#: By dataset, month (empty for the zones) and step: its state, and how far it is and what it says, if that is known.
Steps = dict[tuple[str, str, str], tuple[str, str]]


class Luigid:
    """A luigid that loads its state at the start and saves it at the end of the block; used within the board's loop."""

    def __init__(self, logs: str) -> None:
        prepare_luigi(_OPTIONS)
        logging.getLogger("luigi.scheduler").setLevel(logging.WARNING)
        self._path = Path(logs) / "board" / "luigid.pickle"
        metrics = MetricsCollectors.prometheus if find_spec("prometheus_client") else MetricsCollectors.default
        self.scheduler = StepScheduler(state_path=str(self._path), metrics_collector=metrics)
        self._callback = PeriodicCallback(self._tick, _INTERVAL_S * 1000)
        own = {"scheduler": self.scheduler}
        #: The page of the visualiser finds the API by its relative address, ../../api.
        self.handlers: list[tuple[Any, ...]] = [
            (r"(?:/luigid)?/api/(\w+)", _Api, own),
            (r"/metrics", _Metrics, own),
            (r"/luigid/?", _Entrance),
            (r"/luigid/static/visualiser/([\w./-]*)", _Visualiser, {"path": str(_VISUALISER)}),
        ]

    def __enter__(self) -> Luigid:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self.scheduler.load()
        self._callback.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._callback.stop()
        self.scheduler.dump()

    def overlay(self) -> Steps:
        """The running, waiting and failed steps; a failed one may have been done since, without luigid."""
        self.scheduler.prune()
        steps: Steps = {}
        for status, shown in _STATUSES.items():
            for task in self.scheduler._state.get_active_tasks_by_status(status):
                match, params = _STEP.fullmatch(str(task.family)), task.params
                if not match or (status == PENDING and not task.stakeholders):
                    continue
                dataset, month = ("zones", "") if match[2] else (params.get("dataset"), params.get("month"))
                percent, message = task.progress_percentage, cut(str(task.status_message or ""), 200)
                share = f"{min(100, max(0, percent)):.0f}% " if isinstance(percent, (int, float)) else ""
                steps.setdefault((str(dataset), str(month), match[1].lower()), (shown, f"{share}{message}".rstrip()))
        return steps

    @property
    def workers(self) -> int:
        """How many workers are connected."""
        return len(list(self.scheduler._state.get_active_workers()))

    def _tick(self) -> None:
        self.scheduler.prune()
        self.scheduler.dump()


class _Guarded(Checked):
    """The checks in front of each of luigid's handlers."""

    #: Further values of Sec-Fetch-Site that are allowed; it is "none" where the user enters the address.
    sites: tuple[str, ...] = ()

    def check_xsrf_cookie(self) -> None:
        """Nothing: workers have no cookies, and `prepare` refuses other sites."""

    def prepare(self) -> None:
        """Refuse other sites, and browsers without a login."""
        self.access.check_host(self.request)
        is_marked = check_origin(self.request, *self.sites)
        self.needs_login = is_marked or not self.is_for_programs()
        # A page at another port of this machine has the same cookies.
        referer = self.request.headers.get("Referer", "").partition("://")[2].partition("/")[0]
        if self.needs_login and not is_marked and referer != self.request.host:
            raise Refused("the request does not come from a page of this board; open the page and use its buttons")
        self.check_login()

    def is_for_programs(self) -> bool:
        """Whether the request needs no login if it has no mark of a browser."""
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
    sites = ("none",)

    def get(self) -> None:
        self.redirect("/luigid/static/visualiser/index.html")


class _Visualiser(_Guarded, StaticFileHandler):
    sites = ("none",)
    scripts = re.findall(r"<script>(.*?)</script>", (_VISUALISER / "index.html").read_text(encoding="utf-8"), re.DOTALL)

    def set_default_headers(self) -> None:
        """The board's policy, with exceptions for the styles of the visualiser, and for the script in its page."""
        super().set_default_headers()
        digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in self.scripts]
        allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
        self.set_header(
            "Content-Security-Policy",
            f"default-src 'self'; script-src 'self' {allowed}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
            "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        )
