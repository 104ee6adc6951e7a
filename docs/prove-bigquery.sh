#!/bin/bash
# Proves on a real project what the emulators cannot: months of green loaded into BigQuery, by every way there is.
#
#   make prove-bigquery PROJECT=my-project [LOCATION=US]
#
# Needs gcloud and bq, logged in (also: gcloud auth application-default login). Makes a bucket and a dataset of its own and
# deletes both at the end, whatever happens. Takes about ten minutes and costs less than a cent.
set -euo pipefail
: "${PROJECT:?say which project, as in: make prove-bigquery PROJECT=my-project}"
LOCATION=${LOCATION:-US}
BIN=${BIN:-.venv/bin}
NAME=taxi_proof_$$
BUCKET=$PROJECT-${NAME//_/-}
FOLDER=$(mktemp -d)

clean_up() {
  bq --project_id "$PROJECT" rm --recursive --force --dataset "$PROJECT:$NAME" || true
  gcloud storage rm --recursive "gs://$BUCKET" --project "$PROJECT" || true
  rm -rf "$FOLDER"
}
trap clean_up EXIT

export PIPELINE_LAKE=gs://$BUCKET/lake PIPELINE_SCRATCH=$FOLDER/scratch PIPELINE_LOGS=$FOLDER/logs
direct="bigquery://$PROJECT/$NAME?location=$LOCATION"
export PIPELINE_WAREHOUSE=$direct

kept=0
# expect WHAT ROWS QUERY: the query gives one number, which must be this one.
expect() {
  local got
  got=$("$BIN/pipeline" sql "$3" --format csv | tail -n 1 | tr -d '\r')
  if [ "$got" = "$2" ]; then
    kept=$((kept + 1)); echo "  ok    $1: $got"
  else
    echo "  BROKEN $1: $got, expected $2" >&2; exit 1
  fi
}
rows() { echo "SELECT COUNT(*) AS n FROM $1 WHERE month = DATE '$2'"; }

gcloud storage buckets create "gs://$BUCKET" --project "$PROJECT" --location "$LOCATION" --uniform-bucket-level-access

echo "== one month, loaded right into its partition"
"$BIN/pipeline" backfill green 2024-01
expect "rows of green 2024-01" 56551 "$(rows green 2024-01-01)"
expect "times are DATETIME" 2 "SELECT COUNT(*) AS n FROM INFORMATION_SCHEMA.COLUMNS WHERE table_name = 'green' AND data_type = 'DATETIME'"
expect "days in the mart" 31 "SELECT COUNT(*) AS n FROM daily_trips WHERE dataset = 'green' AND month = DATE '2024-01-01'"

echo "== external tables over the lake"
"$BIN/luigi" --module pipeline Expose --local-scheduler
expect "rows of the external table" 56551 "$(rows green_lake 2024-01-01)"

echo "== two loads at once"
"$BIN/pipeline" backfill green 2024-02..2024-03 --workers 2
expect "rows of green 2024-02" 53577 "$(rows green 2024-02-01)"
expect "rows of green 2024-03" 57457 "$(rows green 2024-03-01)"

echo "== a month loaded again"
"$BIN/pipeline" redo green 2024-01 --from load --yes
expect "rows of green 2024-01" 56551 "$(rows green 2024-01-01)"
expect "days in the mart" 31 "SELECT COUNT(*) AS n FROM daily_trips WHERE dataset = 'green' AND month = DATE '2024-01-01'"

echo "== by way of a staging table"
export PIPELINE_WAREHOUSE="$direct&load=staged"
"$BIN/pipeline" redo green 2024-02 --from load --yes
expect "rows of green 2024-02" 53577 "$(rows green 2024-02-01)"

echo "$kept promises kept"
