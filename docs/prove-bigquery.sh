#!/bin/bash
# Tests on a real project what the emulators cannot test: loads months of green into BigQuery in every way.
#
#   make prove-bigquery PROJECT=my-project [LOCATION=US]
#
# Needs gcloud and bq, logged in (also: gcloud auth application-default login). Creates its own bucket and dataset, and
# always deletes both at the end. Takes about ten minutes and costs less than a cent.
set -euo pipefail
: "${PROJECT:?is not set; run: make prove-bigquery PROJECT=my-project}"
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

passed=0
# expect NAME NUMBER QUERY: the query must return this number.
expect() {
  local actual
  actual=$("$BIN/pipeline" sql "$3" --format csv | tail -n 1 | tr -d '\r')
  if [ "$actual" = "$2" ]; then
    passed=$((passed + 1)); echo "  ok    $1: $actual"
  else
    echo "  FAIL  $1: $actual, expected $2" >&2; exit 1
  fi
}
rows() { echo "SELECT COUNT(*) AS n FROM $1 WHERE month = DATE '$2'"; }

gcloud storage buckets create "gs://$BUCKET" --project "$PROJECT" --location "$LOCATION" --uniform-bucket-level-access

echo "== one month, loaded directly into its partition"
"$BIN/pipeline" backfill green 2024-01
expect "rows of green 2024-01" 56551 "$(rows green 2024-01-01)"
expect "times are DATETIME" 2 "SELECT COUNT(*) AS n FROM INFORMATION_SCHEMA.COLUMNS WHERE table_name = 'green' AND data_type = 'DATETIME'"
expect "days in the mart" 31 "SELECT COUNT(*) AS n FROM daily_trips WHERE dataset = 'green' AND month = DATE '2024-01-01'"

echo "== external tables over the lake"
"$BIN/luigi" --module pipeline Expose --local-scheduler
expect "rows of the external table" 56551 "$(rows green_lake 2024-01-01)"

echo "== two concurrent loads"
"$BIN/pipeline" backfill green 2024-02..2024-03 --workers 2
expect "rows of green 2024-02" 53577 "$(rows green 2024-02-01)"
expect "rows of green 2024-03" 57457 "$(rows green 2024-03-01)"

echo "== a month loaded again"
"$BIN/pipeline" redo green 2024-01 --from load --yes
expect "rows of green 2024-01" 56551 "$(rows green 2024-01-01)"
expect "days in the mart" 31 "SELECT COUNT(*) AS n FROM daily_trips WHERE dataset = 'green' AND month = DATE '2024-01-01'"

echo "== through a staging table"
export PIPELINE_WAREHOUSE="$direct&load=staged"
"$BIN/pipeline" redo green 2024-02 --from load --yes
expect "rows of green 2024-02" 53577 "$(rows green 2024-02-01)"

echo "$passed checks passed"
