"""The source and luigid: do they answer, how fast, and whom else would luigid answer?"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import luigi
import requests
from luigi.configuration import get_config

from pipeline.cli.doctor.line import Line, failed, ok, warning
from pipeline.datasets import DATASETS
from pipeline.errors import SourceError, redact
from pipeline.months import format_month, parse_month
from pipeline.places import source_of
from pipeline.settings import Settings
from pipeline.source.retries import RetryableError, ca_bundle, translate_request_errors, validate_response
from pipeline.source.site import Source
from pipeline.tasks.luigi_options import LUIGI_OPTIONS

_LIMIT_S = 5.0
#: Published long ago, and in every kind of source: TLC's site, and the mirror of its old CSVs.
_SAMPLES = {"parquet": parse_month("2024-01")}
_OLD_SAMPLE = parse_month("2019-01")
_CLOCK_S = 60


def source(settings: Settings) -> Iterator[Line]:
    """Whether a month that is long published can be had, how long the answer took, and whether clocks agree."""
    place = source_of(replace(settings, timeout_s=min(settings.timeout_s, _LIMIT_S), retries=0))
    spec, month = DATASETS["green"], _SAMPLES.get(place.format, _OLD_SAMPLE)
    wanted, where = f"green {format_month(month)}", redact(settings.source)
    remedy = "look at [pipeline] source and source_format"
    if place.is_folder:
        there = place.has(spec, month)
        yield ok("source", f"{where} has {wanted}") if there else warning("source", f"{where} lacks {wanted}", remedy)
    else:
        yield from _site(place, place.url(spec, month), wanted)


def _site(place: Source, url: str, wanted: str) -> Iterator[Line]:
    where, began = redact(url), time.time()
    through = f" through the proxy {redact(proxy)}" if (proxy := _proxy(url)) else ""
    try:
        with translate_request_errors(where):
            # As runs ask, but once, and with little patience.
            answer = requests.head(url, timeout=place.policy.timeout_s, allow_redirects=True, verify=ca_bundle())
        taken_s = time.time() - began
        if answer.status_code not in (403, 404):
            validate_response(answer, where)
    except (RetryableError, SourceError) as error:
        message = str(error).removeprefix(f"{where}: ").partition("; ")[0]
        remedy = "look at the network, the proxy that the environment names, and [pipeline] source; or come back later"
        yield failed("source", f"{where}{through}: {message}", remedy)
        return
    told = f"{where} answered in {1000 * taken_s:.0f} ms{through}"
    if answer.ok:
        yield ok("source", told)
    else:
        remedy = "it may lack this month alone; else look at [pipeline] source and source_format"
        yield warning("source", f"{told}, but lacks {wanted} (HTTP {answer.status_code})", remedy)
    yield clock(answer.headers.get("Date", ""), answer.headers.get("Age", ""), began + taken_s / 2)


def clock(date: str, age: str, now: float) -> Line:
    """Whether our time is that of a site, which says when the answer was made, and how long ago a cache took it."""
    try:
        made = parsedate_to_datetime(date)
    except (ValueError, TypeError):
        return ok("clock", "the source does not say what time it is")
    theirs = made.replace(tzinfo=made.tzinfo or timezone.utc).timestamp() + (int(age) if age.isdecimal() else 0)
    behind = theirs - now
    if abs(behind) <= _CLOCK_S:
        return ok("clock", f"as the source's, to within {max(1, abs(behind)):.0f} s")
    told = f"{abs(behind):,.0f} s {'behind' if behind > 0 else 'ahead of'} the source's"
    here = datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="seconds")
    return warning("clock", f"{told} ({here} here)", "set it, for instance by NTP: Google Cloud and TLS go by it")


def scheduler(url: str | None) -> Iterator[Line]:
    """Whether luigid answers, knows our limits, and answers nobody else."""
    url = url or configured_scheduler()
    if not url:
        yield ok("scheduler", "none is configured, and none is needed")
        return
    where, began = redact(url), time.monotonic()
    limits, reason = _limits(url)
    if limits is None:
        remedy = (
            "start it: luigid --address 127.0.0.1 --state-path luigid.pickle; or do without it: luigi --local-scheduler"
        )
        yield failed("scheduler", f"{where}: {reason}", remedy)
        return
    told = (
        f"{where} answered in {1000 * (time.monotonic() - began):.0f} ms ({reason}); luigid does not tell its version"
    )
    unknown = sorted(set(LUIGI_OPTIONS["resources"]) - limits)
    exposed = _exposed(url)
    if unknown:
        remedy = "start luigid where a luigi.cfg with [resources] is, such as docs/luigid.cfg"
        yield warning("scheduler", f"{told}; of {', '.join(unknown)} it allows one at a time", remedy)
    if exposed:
        remedy = "start it with --address 127.0.0.1, or keep it in a network of its own"
        yield warning("scheduler", f"{told}; it has no passwords, and answers at {', '.join(exposed)}, too", remedy)
    if not unknown and not exposed:
        yield ok("scheduler", f"{told}, ours is luigi {luigi.__version__}")


def configured_scheduler() -> str:
    """The address of luigid that luigi.cfg names; empty where it names none."""
    found = get_config()
    if url := str(found.get("core", "scheduler_url", "")).strip():
        return url
    host = str(found.get("core", "scheduler_host", "") or found.get("core", "default_scheduler_host", "")).strip()
    port = found.get("core", "scheduler_port", "") or found.get("core", "default_scheduler_port", "")
    return f"http://{host}:{port or 8082}" if host else ""


def _limits(url: str) -> tuple[set[str] | None, str]:
    """The resources that a luigid knows, and what serves it; None, and why, where none answers."""
    try:
        with translate_request_errors("luigid"):
            answer = requests.get(f"{url.rstrip('/')}/api/resource_list", timeout=_LIMIT_S)
        validate_response(answer, "luigid")
        limits = {str(entry["name"]) for entry in answer.json()["response"]}
    except (ValueError, KeyError, TypeError):
        return None, "what answers there is no luigid"
    except (RetryableError, SourceError) as error:
        return None, str(error).partition("; ")[0].removeprefix("luigid: ")
    return limits, answer.headers.get("Server", "no server named")


def _exposed(url: str) -> list[str]:
    """The addresses, other than loopback, at which a luigid of this machine answers; or that of another machine."""
    parts = urlsplit(url)
    host, own = parts.hostname or "", _own_addresses()
    at = {str(info[4][0]) for info in _addresses(host)}
    if not all(_is_loopback(address) or address in own for address in at):
        return [host]  # On another machine; then all that reach it from here do so over a network.
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return [address for address in sorted(own) if _answers(address, port)]


def _answers(address: str, port: int) -> bool:
    host = f"[{address}]" if ":" in address else address
    with requests.Session() as session:
        session.trust_env = False  # No proxy is asked for an address of this machine.
        with suppress(requests.RequestException, ValueError):
            answer = session.get(f"http://{host}:{port}/api/resource_list", timeout=1)
            return answer.ok and "response" in answer.json()
    return False


def _own_addresses() -> set[str]:
    """The addresses of this machine by which others may reach it."""
    found = {str(info[4][0]) for info in _addresses(socket.gethostname())}
    # Connecting a datagram socket sends nothing; it only chooses the address that would be used.
    for family, far in ((socket.AF_INET, "198.51.100.1"), (socket.AF_INET6, "2001:db8::1")):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))
            found.add(str(probe.getsockname()[0]))
    return {address for address in found if not _is_loopback(address)}


def _addresses(host: str) -> list[tuple[object, object, object, object, tuple[object, ...]]]:
    with suppress(OSError, UnicodeError):
        return [*socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    return []


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _proxy(url: str) -> str:
    parts = urlsplit(url)
    return "" if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme, "")
