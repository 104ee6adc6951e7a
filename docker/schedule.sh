#!/bin/sh
# Load the latest months now and then every TAXI_EVERY seconds; after failures in one minute, two, four, up to TAXI_EVERY.
# The health check reads the exit code of the last run.
set -eu
state=/tmp/schedule
every=${TAXI_EVERY:-86400} retry=60
child=
# Stop the program, and wait until it has cleaned up.
trap 'if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null || true; wait "$child" || true; fi; exit 0' TERM INT
while :; do
  echo running > "$state"
  # shellcheck disable=SC2086 # The datasets are separated by spaces or commas.
  pipeline latest ${TAXI_DATASETS:-all} --months "${TAXI_MONTHS:-12}" --workers 1 &
  child=$!
  code=0
  wait "$child" || code=$?
  echo "$code" > "$state"
  wait=$every
  case $code in
    0 | 3) retry=60 ;;
    *)
      [ "$retry" -gt "$every" ] || wait=$retry
      retry=$((wait * 2))
      ;;
  esac
  echo "schedule: exit code $code; next run in $wait s"
  sleep "$wait" &
  child=$!
  wait "$child" || true
done
