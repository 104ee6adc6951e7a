"""Conform one raw file, as the Conform task does: conform_one.py RAW DRAFT DATASET MONTH."""

import sys
from pathlib import Path

from pipeline.conform.month import conform_file
from pipeline.months import parse_month

raw, draft, dataset, month = sys.argv[1:]
conform_file(Path(raw), Path(draft), dataset, parse_month(month))
