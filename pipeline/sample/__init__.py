"""A stand-in for TLC's site, for demonstrations, tests and benchmarks: made-up trips in TLC's layout and spelling.

`SampleSite` serves it within a program, `sample_process` in another process, `python -m pipeline.sample` from a shell.
None of it is TLC's data: rows are random, with the counts, types, spellings and oddities of TLC's files.
"""

from __future__ import annotations

from pipeline.sample.faults import KINDS, Faults
from pipeline.sample.process import sample_process
from pipeline.sample.site import SampleSite

__all__ = ["KINDS", "Faults", "SampleSite", "sample_process"]
