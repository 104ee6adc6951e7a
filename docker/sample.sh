#!/bin/sh
# The sample site, which replaces TLC's: generated months with a hundredth of TLC's rows, up to the month before last.
# Arguments are options of `python -m pipeline.sample`, such as faults.
set -eu
last=$(date -d "$(date +%Y-%m-01) -2 months" +%Y-%m)
exec python -m pipeline.sample --address 0.0.0.0 --port 8000 --scale "${TAXI_SAMPLE_SCALE:-0.01}" --last "$last" \
  --cache /tmp "$@"
