"""Python, the packages that are installed, and the machine: is it what a run needs?"""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from pipeline.cli.doctor.line import Line, failed, ok, warning
from pipeline.units import size
from pipeline.warehouses.registry import engine_of

_PACKAGE = "taxi-pipeline"
#: What a step may take while it conforms a month.
_WORKER_BYTES = 500_000_000
_REQUIREMENT = re.compile(r"\s*([\w.-]+)\s*(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?")
_BOUND = re.compile(r"(>=|<=|==|!=|<|>|~=)\s*([0-9][\w.]*)")


def python() -> Iterator[Line]:
    """Whether this Python is one that the package is made for."""
    found, allowed = ".".join(map(str, sys.version_info[:3])), _requires_python()
    if allowed and not fits(found, allowed):
        yield failed(
            "python", f"{found} at {sys.executable}; needed is {allowed}", "make a virtual environment with such a one"
        )
    else:
        yield ok("python", f"{found} at {sys.executable}")


def packages(warehouse: str) -> Iterator[Line]:
    """Whether what our own metadata asks for is installed, and what the warehouse needs besides."""
    try:
        required = metadata.requires(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        yield warning(
            "packages", f"{_PACKAGE} is not installed, so nothing says what it needs", "pip install --editable ."
        )
        return
    wanted = needed(required, engine_of(warehouse).extra)
    found = {name: _installed(name) for name in wanted}
    wrong = {name: bounds for name, bounds in wanted.items() if not fits(found[name], bounds)}
    for name, bounds in wrong.items():
        has = f"{name} {found[name]} is installed" if found[name] else f"{name} is not installed"
        yield failed("packages", f"{has}; needed is {bounds or 'any'}", f"pip install '{name}{bounds}'")
    if not wrong:
        told = ", ".join(f"{name} {version}" for name, version in found.items())
        yield ok("packages", f"{_PACKAGE} {metadata.version(_PACKAGE)} with {told}")


def needed(required: list[str], extra: str) -> dict[str, str]:
    """The bounds by package, of those needed always and those of the extra."""
    found = {}
    for text in required:
        match = _REQUIREMENT.fullmatch(text)
        if match is None:
            continue
        of = re.search(r"extra\s*==\s*[\"']([\w-]+)[\"']", match[3] or "")
        if of is None or of[1] == extra:
            found[match[1]] = match[2].strip()
    return found


def fits(version: str, bounds: str) -> bool:
    """Whether a version keeps bounds such as `>=3.7,!=3.11.0`; no version fits none."""
    compared = {"<": (-1,), "<=": (-1, 0), "==": (0,), ">=": (0, 1), "~=": (0, 1), ">": (1,), "!=": (-1, 1)}
    return bool(version) and all(
        _order(version, bound) in compared[operator] for operator, bound in _BOUND.findall(bounds)
    )


def machine(workers: int) -> Iterator[Line]:
    """Whether memory and CPU suffice for so many workers."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        multiprocessing.Lock()
    except (OSError, ImportError) as error:
        yield failed(
            "machine", f"processes cannot share a lock: {error}", "make /dev/shm a file system that can be written"
        )
    memory, told = free_memory(), f"{workers} worker{'s' * (workers != 1)} on {cpus} CPU{'s' * (cpus != 1)}"
    if memory is not None:
        told += f" with {size(memory)} of memory free"
    if memory is not None and memory < workers * _WORKER_BYTES:
        yield warning(
            "machine",
            f"{told}; a worker takes up to {size(_WORKER_BYTES)}",
            f"use --workers {max(1, min(2 * cpus, memory // _WORKER_BYTES))}, or lower cpu in [resources] of luigi.cfg",
        )
    elif workers > 2 * cpus:
        yield warning("machine", f"{told}; more than two for each CPU only wait", f"use --workers {2 * cpus}")
    else:
        yield ok("machine", told)


def free_memory() -> int | None:
    """Bytes that this process could still get, by the kernel and the limit of its group; None where nobody tells."""
    found = []
    with suppress(OSError, ValueError):
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        found += [1024 * int(number) for number in re.findall(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)]
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / f"memory.{name}").read_text(encoding="ascii") for name in ("max", "current"))
        # What it holds of files can be taken back at any time.
        held = re.findall(r"^inactive_file (\d+)", (group / "memory.stat").read_text(encoding="ascii"), re.MULTILINE)
        found.append(int(limit) - int(used) + sum(map(int, held)))
    if not found:
        with suppress(OSError, ValueError):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=None)


def _requires_python() -> str:
    with suppress(metadata.PackageNotFoundError):
        return next(iter(metadata.metadata(_PACKAGE).get_all("Requires-Python") or []), "")
    return ""


def _installed(name: str) -> str:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return ""


def _order(version: str, bound: str) -> int:
    """-1, 0 or 1: by the numbers of the release alone, which is all that our bounds have."""
    ours, theirs = _release(version), _release(bound)
    length = max(len(ours), len(theirs))
    ours, theirs = (numbers + [0] * (length - len(numbers)) for numbers in (ours, theirs))
    return (ours > theirs) - (ours < theirs)


def _release(version: str) -> list[int]:
    match = re.match(r"\d+(\.\d+)*", version)
    return [int(number) for number in match[0].split(".")] if match else []
