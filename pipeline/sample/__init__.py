"""A stand-in for TLC's site, for demonstrations, tests and benchmarks: made-up trips in TLC's layout and spelling.

`SampleSite` serves it inside a program, `sample_process` beside one, `python -m pipeline.sample` from a shell. Nothing
here is TLC's data: rows are drawn by dice, in numbers, types, spellings and oddities as TLC publishes them.
"""

from __future__ import annotations

from pipeline.sample.faults import KINDS, Faults
from pipeline.sample.process import sample_process
from pipeline.sample.site import SampleSite

__all__ = ["KINDS", "Faults", "SampleSite", "sample_process"]
