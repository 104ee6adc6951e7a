"""How many processes a run has when no number is given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.tasks import workers


@pytest.mark.parametrize(
    ("quota", "memory", "allowed"),
    [
        ("max 100000", "max", 4),
        ("200000 100000", "max", 2),
        ("50000 100000", "max", 1),
        ("max 100000", "3221225472", 3),
        ("max 100000", "500000000", 1),
    ],
)
def test_a_container_gets_the_workers_of_its_own_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, memory: str, allowed: int
) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    (tmp_path / "memory.max").write_text(f"{memory}\n")
    monkeypatch.setattr(workers, "_CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(64))
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 16_000_000, "SC_PAGE_SIZE": 4_096}.__getitem__)
    assert workers.default_workers() == allowed


def test_a_run_has_a_worker_for_each_usable_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(workers, "_CONTROL_GROUP", tmp_path / "none")
    assert 1 <= workers.default_workers() <= min(4, workers.usable_cpus())
