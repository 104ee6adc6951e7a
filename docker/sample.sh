#!/bin/sh
# The sample site, a stand-in for TLC's: a hundredth of its rows, made up, to the month before last, as TLC publishes.
# What is added are options of `python -m pipeline.sample`; it misbehaves when told to.
set -eu
last=$(date -d "$(date +%Y-%m-01) -2 months" +%Y-%m)
exec python -m pipeline.sample --address 0.0.0.0 --port 8000 --scale "${TAXI_SAMPLE_SCALE:-0.01}" --last "$last" \
  --cache /tmp "$@"
