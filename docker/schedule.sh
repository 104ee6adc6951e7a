#!/bin/sh
# The latest months: now, and then every TAXI_EVERY seconds. The code of the last run is what the health check reads.
set -eu
state=/tmp/schedule
child=
# The program is told, and what it was at is put away, before this ends.
trap 'if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null || true; wait "$child" || true; fi; exit 0' TERM INT
while :; do
  echo running > "$state"
  # shellcheck disable=SC2086 # Datasets may have spaces or commas between them.
  pipeline latest ${TAXI_DATASETS:-all} --months "${TAXI_MONTHS:-12}" --workers 1 &
  child=$!
  code=0
  wait "$child" || code=$?
  echo "$code" > "$state"
  echo "schedule: ended with $code; the next run is in ${TAXI_EVERY:-86400} s"
  sleep "${TAXI_EVERY:-86400}" &
  child=$!
  wait "$child" || true
done
