#!/bin/sh
# The latest months: now, and then every TAXI_EVERY seconds; after a failure in a minute, then two, four, and so on up to
# TAXI_EVERY. The code of the last run is what the health check reads.
set -eu
state=/tmp/schedule
every=${TAXI_EVERY:-86400} retry=60
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
  wait=$every
  case $code in
    0 | 3) retry=60 ;;
    *)
      [ "$retry" -gt "$every" ] || wait=$retry
      retry=$((wait * 2))
      ;;
  esac
  echo "schedule: ended with $code; the next run is in $wait s"
  sleep "$wait" &
  child=$!
  wait "$child" || true
done
