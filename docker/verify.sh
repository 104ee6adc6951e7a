#!/bin/bash
# Builds the images and tries the whole stack, with whatever Docker engine there is, in folders, volumes and a project of
# its own, which are gone afterwards; of a failure the logs are kept. It needs bash, docker with compose, and no internet
# once the images are built. About ten minutes. Ends with 0 when every promise was kept.
#
#   docker/verify.sh
#   NO_BUILD=1                take the images that are there (taxi-pipeline:latest, taxi-pipeline-emulators:latest)
#   BUILD_ONLY=1              build them, and no more
#   BUILD_ARGS="…"            options more for docker build, such as --network host or --build-arg PYTHON_IMAGE=…
#   EMULATORS=0               without the emulators of Google Cloud
#   GCLOUD=1                  with the image that has Google's command, which needs Google's repository
#   PORT=18082                port of 127.0.0.1 at which luigid is published meanwhile
#   REACH="…"                 command before curl, where ports are published in another network namespace
set -euo pipefail
cd "$(dirname "$0")/.."
PORT=${PORT:-18082}

passed=0 failed=0
ok() { echo "  ok    $*"; passed=$((passed + 1)); }
bad() { echo "  FAIL  $*"; failed=$((failed + 1)); }
check() { # PROMISE COMMAND...
  local promise=$1
  shift
  if "$@"; then ok "$promise"; else bad "$promise"; fi
}
is() { # PROMISE EXPECTED FOUND
  if [ "$2" = "$3" ]; then ok "$1: $3"; else bad "$1: '$3' instead of '$2'"; fi
}
has() { # PROMISE TEXT FILE
  if grep -qF -- "$2" "$3"; then ok "$1"; else
    bad "$1: '$2' is not in:"
    tail -5 "$3"
  fi
}
until_true() { # SECONDS COMMAND...
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.5
  done
}

build() { # NAME TARGET
  echo "== image $1"
  # shellcheck disable=SC2086 # Words of BUILD_ARGS are options.
  docker build --quiet ${BUILD_ARGS:-} --file docker/Dockerfile --target "$2" --tag "$1" . > /dev/null
}
if [ -z "${NO_BUILD:-}" ]; then
  build taxi-pipeline:latest pipeline
  [ "${EMULATORS:-1}" = 0 ] || build taxi-pipeline-emulators:latest emulators
  [ "${GCLOUD:-0}" = 0 ] || build taxi-pipeline-gcloud:latest gcloud
  [ -z "${BUILD_ONLY:-}" ] || exit 0
fi

root=$(mktemp -d)
mkdir "$root"/{data,secrets,credentials}
uid=$(id -u) gid=$(id -g)
case $(docker info --format '{{.SecurityOptions}}') in
  # There, a container's root is who runs this.
  *name=rootless*) rootless=1 ;;
  *) rootless= ;;
esac
# Root would not notice what it may not do.
if [ "$uid" = 0 ]; then
  uid=1234 gid=1235
  chmod 0755 "$root"
  chown "$uid:$gid" "$root"/*
fi
faults=
for month in 01 02 03 04; do faults="$faults --fault delay:green_tripdata_2019-$month.parquet:60"; done
for month in 2018-01 2018-02 2017-01 2017-02; do faults="$faults --fault delay:green_tripdata_$month.parquet:15"; done
cat > "$root/env" << END
PIPELINE_UID=$uid
PIPELINE_GID=$gid
COMPOSE_PROFILES=sample
PIPELINE_SOURCE=http://sample:8000
TAXI_MONTHS=4
TAXI_DATA=$root/data
TAXI_SECRETS=$root/secrets
LUIGID_PORT=$PORT
GCP_CREDENTIALS=$root/credentials
GCP_LAKE=gs://verify/lake
GCP_WAREHOUSE=bigquery://verify-project/taxi
TAXI_SAMPLE_OPTIONS=$faults
END
project=taxi-verify-$$
compose() { docker compose --progress quiet --env-file "$root/env" --project-name "$project" --file docker/compose.yaml "$@"; }
finish() {
  local code=$?
  [ "$code" = 0 ] || compose --profile '*' logs --timestamps > "$root/containers.log" 2>&1 || true
  compose --profile '*' down --volumes --remove-orphans --timeout 5 > /dev/null 2>&1 || true
  for name in one two; do clone "$name" down --volumes --timeout 5 > /dev/null 2>&1 || true; done
  if [ "$code" = 0 ]; then
    rm -rf "$root"
  else
    [ ! -d "$root/data/logs" ] || mv "$root/data/logs" "$root/steps"
    rm -rf "$root"/{data,secrets,credentials,one,two}
    echo "what commands, containers and steps said is kept in $root"
  fi
}
trap finish EXIT

# taxi.sh in a second clone, of which only docker/ matters.
clone() { (cd "$root" && env -u PIPELINE_UID "$1/docker/taxi.sh" --progress quiet "${@:2}"); }
containers() { docker ps --all --quiet --filter "label=com.docker.compose.project=$project" "$@"; }
service() { containers --filter "label=com.docker.compose.service=$1"; }
rows() { compose exec -T postgres psql -XAtU taxi ny_taxi -c "$1"; }
# What luigid knows: "host step" of each step that runs, or how many are finished.
luigid_says() {
  compose exec -T luigid python -c "
import json, urllib.parse as p, urllib.request as u
def ask(status):
    data = p.urlencode({'data': json.dumps({'status': status, 'upstream_status': '', 'limit': False})})
    return json.load(u.urlopen('http://127.0.0.1:8082/api/task_list?' + data))['response']
if '$1' == 'finished':
    print(len(ask('DONE')))
else:
    for task in ask('RUNNING').values():
        print(task['worker_running'].partition('host=')[2].partition(',')[0], task['display_name'])
"
}
mib() { # Resident memory of containers, in MiB, one line each
  docker stats --no-stream --format '{{.Name}} {{.MemUsage}}' "$@" |
    awk '{ v = $2 + 0; if ($2 ~ /GiB/) v *= 1024; if ($2 ~ /KiB/) v /= 1024; printf "%s %.1f\n", $1, v }'
}

echo "== start: docker $(docker version --format '{{.Server.Version}}'), compose $(docker compose version --short), files as $uid:$gid"
began=$SECONDS
compose up --detach --no-build --wait --wait-timeout 120 --scale worker=3
ok "up and healthy in $((SECONDS - began)) s"
for name in luigid postgres worker schedule sample; do
  for id in $(service "$name"); do
    is "$name is healthy" healthy "$(docker inspect --format '{{.State.Health.Status}}' "$id")"
    facts=$(docker exec "$id" sh -c 'echo "$(id -u) $(grep -c "^CapEff:.0*$" /proc/1/status) $(grep -c "^NoNewPrivs:.1$" /proc/1/status)"')
    check "$name is not root, has no capability and can get none ($facts)" [ "${facts#* }" = "1 1" -a "${facts%% *}" != 0 ]
    check "$name cannot write its own files" bash -c "! docker exec $id touch /verify 2> /dev/null"
    break
  done
done
is "only 127.0.0.1 is published" "127.0.0.1:$PORT" "$(docker ps --filter "label=com.docker.compose.project=$project" --format '{{.Ports}}' | grep -oE '[0-9.:]+:[0-9]+->' | sort -u | tr -d '>-')"
if command -v curl > /dev/null; then
  # shellcheck disable=SC2086 # A command with its arguments.
  is "the visualiser answers" 200 "$(${REACH:-} curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$PORT/static/visualiser/index.html" || true)"
fi

reaches() { docker exec "$(service "$1" | head -1)" timeout 3 bash -c ": > /dev/tcp/$2/$3" 2> /dev/null; }
check "a worker reaches luigid and Postgres" eval "reaches worker luigid 8082 && reaches worker postgres 5432"
check "who needs neither reaches neither" eval "! reaches sample luigid 8082 && ! reaches sample postgres 5432"

echo "== schedule"
scheduled() { [ "$(compose exec -T schedule cat /tmp/schedule)" = 0 ]; }
check "the latest months are there" until_true 120 scheduled
newest=$(date -d "$(date +%Y-%m-01) -2 months" +%Y-%m-01)
is "the newest that is published" "$newest" "$(rows 'SELECT max(month) FROM green')"
compose run --rm -T --env TAXI_DATASETS=blue schedule > "$root/schedule.log" 2>&1 &
retried=$!
said() { grep -q "schedule: ended with 2; the next run is in 60 s" "$root/schedule.log"; }
check "after a failure it does not wait for a day" until_true 30 said
docker stop "$(containers --filter label=com.docker.compose.oneoff=True --filter label=com.docker.compose.service=schedule)" > /dev/null
wait "$retried" || true
# This has an ENTRYPOINT of its own, and a user without a name.
printed=$(compose run --rm -T --no-deps --user 4321:4321 cli schedule systemd 2> "$root/printed.log") || true
check "what it prints for systemd names even a user without a name" grep -q '^User=4321$' <<< "$printed"
mkdir "$root/pasted"
cat > "$root/pasted/luigi.cfg" << END
[pipeline]
source = http://sample:8000
[Latest]
months = 4
END
chown -R "$uid:$gid" "$root/pasted"
docker run --rm --user "$uid:$gid" --volume "$root/pasted:$root/pasted" --workdir "$root/pasted" taxi-pipeline:latest \
  schedule compose --datasets green > "$root/pasted/compose.yaml"
pasted() { docker compose --progress quiet --project-name "$project-pasted" --file "$root/pasted/compose.yaml" "$@"; }
printf 'networks: {default: {name: %s_default, external: true}}\n' "$project" >> "$root/pasted/compose.yaml"
pasted up --detach > "$root/pasted.log" 2>&1 || true
check "what it prints for Compose runs as it is" until_true 60 test -s "$root/pasted/data/warehouse.duckdb"
pasted down --timeout 1 > /dev/null 2>&1

echo "== backfill"
compose run --rm -T cli backfill yellow green 2024-01..2024-03 > "$root/backfill.log" 2>&1 && code=0 || code=$?
is "backfill yellow green 2024-01..2024-03 ends with" 0 "$code"
is "months of it in Postgres" 6 "$(rows "SELECT count(*) FROM loads WHERE month BETWEEN '2024-01-01' AND '2024-03-01'")"
is "rows of tables and records agree" 0 "$(rows "SELECT count(*) FROM (SELECT month, count(*) AS n FROM green GROUP BY 1) AS t JOIN loads AS l ON l.month = t.month AND l.dataset = 'green' WHERE l.rows <> t.n")"
found=$(rows "SELECT count(*) FROM yellow WHERE month BETWEEN '2024-01-01' AND '2024-03-01'")
check "yellow has a hundredth of TLC's 9,554,778 rows of these months ($found)" [ "$found" -gt 85000 -a "$found" -lt 106000 ]
is "and the marts" 6 "$(rows "SELECT count(DISTINCT (dataset, month)) FROM daily_trips WHERE month BETWEEN '2024-01-01' AND '2024-03-01'")"
is "files of somebody else" "" "$(find "$root/data" "$root/secrets" ! -uid "$uid" -o ! -gid "$gid")"
is "files and folders that all may write" "" "$(find "$root/data" "$root/secrets" -perm -0002 ! -type l)"
compose run --rm -T cli backfill green 2024-01..2024-03 > "$root/again.log" 2>&1 && code=0 || code=$?
is "again, with nothing to do, it ends with" 0 "$code"

echo "== secrets"
password=$(cat "$root/secrets/postgres_password")
# shellcheck disable=SC2046 # One word for each container.
docker inspect $(containers) > "$root/inspected"
check "the password is in no container's description" bash -c "! grep -q '$password' '$root/inspected'"
check "nor in the compose file, resolved" bash -c "! grep -q '$password' <<< \"\$0\"" "$(compose config)"
check "Postgres wants it" bash -c "! docker exec $(service worker | head -1) env PGPASSFILE=/dev/null python -c 'import psycopg; psycopg.connect(\"postgresql://taxi@postgres/ny_taxi\")' 2> /dev/null"

echo "== a worker that is stopped, one that is killed"
compose run --rm -T cli backfill green 2019-01..2019-04 --workers 1 > "$root/killed.log" 2>&1 &
backfill=$!
workers=$(service worker)
holding() { # How many of the workers are in the middle of a month
  luigid_says running > "$root/running"
  local id n=0
  for id in $workers; do ! grep -q "^${id:0:12} " "$root/running" || n=$((n + 1)); done
  [ "$n" -ge "$1" ]
}
check "each worker has a month of somebody else's run" until_true 30 holding 3
sed 's/^/        /' "$root/running"
# shellcheck disable=SC2086 # One word for each container.
set -- $workers
stopped=$1 killed=$2
began=$SECONDS
docker stop "$stopped" > /dev/null
check "told to stop, it ends in $((SECONDS - began)) s" [ $((SECONDS - began)) -lt 10 ]
is "with exit code" 0 "$(docker inspect --format '{{.State.ExitCode}}' "$stopped")"
docker logs "$stopped" > "$root/stopped.log" 2>&1
has "it gives its step back" "worker: gave Download_green_" "$root/stopped.log"
docker kill "$killed" > /dev/null
began=$SECONDS
wait "$backfill" && code=0 || code=$?
is "the run goes on without both, and ends with" 0 "$code"
echo "        $((SECONDS - began)) s after the kill"
is "all months are there" 4 "$(rows "SELECT count(*) FROM loads WHERE dataset = 'green' AND month BETWEEN '2019-01-01' AND '2019-04-01'")"
is "no month twice" 0 "$(rows "SELECT count(*) FROM (SELECT month, count(*) AS n FROM green GROUP BY 1) AS t JOIN loads AS l ON l.month = t.month AND l.dataset = 'green' WHERE l.rows <> t.n")"

echo "== luigid"
before=$(luigid_says finished)
compose restart luigid
until_true 30 luigid_says finished > "$root/done" 2> /dev/null
is "it remembers after a restart how many steps were done" "$before" "$(tail -1 "$root/done")"
check "it did something" [ "$before" -gt 20 ]
check "no worker had to be started again" bash -c "! docker inspect --format '{{.RestartCount}}' $(service worker | tr '\n' ' ') | grep -qv '^0$'"

echo "== memory that is too small"
docker run --rm --init --user "$uid:$gid" --memory 110m --memory-swap 110m --network "${project}_default" --tmpfs /tmp \
  --env PIPELINE_SOURCE=http://sample:8000 --env PIPELINE_LAKE=/tmp/lake --env PIPELINE_LOGS=/tmp/logs \
  --env PIPELINE_WAREHOUSE=duckdb:////tmp/warehouse.duckdb taxi-pipeline:latest backfill yellow 2024-05 --workers 2 \
  > "$root/memory.log" 2>&1 && code=0 || code=$?
if [ -n "$rootless" ] && [ "$code" = 0 ]; then
  echo "  skip  this engine limits no memory"
else
  is "a backfill that has too little ends with" 1 "$code"
  has "and says so" "the step's process was killed (signal 9), most likely because memory ran out" "$root/memory.log"
fi

for name in luigid postgres; do
  echo "== $name is killed in the middle of a backfill"
  year=2018
  [ "$name" = luigid ] || year=2017
  compose run --rm -T cli backfill green "$year-01..$year-02" > "$root/$name.log" 2>&1 &
  backfill=$!
  at_work() { luigid_says running | grep -q "month=$year"; }
  check "it is at work" until_true 30 at_work
  docker kill "$(service "$name")" > /dev/null
  began=$SECONDS
  wait "$backfill" && code=0 || code=$?
  check "it ends with a code of its own ($code), $((SECONDS - began)) s after the kill" [ "$code" = 1 -o "$code" = 4 ]
  check "without a traceback" bash -c "! grep -q Traceback '$root/$name.log'"
  # What each step said before goes to standard error; this is the end of the summary.
  sed -n '/^warehouse  /,$p' "$root/$name.log" | tail -n +2 > "$root/$name-end.log"
  is "and ends with one message" 1 "$(grep -ciE "$name.* (answer|connection|resolve)|connection to $name" "$root/$name-end.log")"
  sed 's/^/        /' "$root/$name-end.log"
  compose run --rm -T cli backfill green "$year-01..$year-02" > "$root/$name-again.log" 2>&1 && code=0 || code=$?
  is "the same command starts it and completes" 0 "$code"
  is "both months are there" 2 "$(rows "SELECT count(*) FROM loads WHERE dataset = 'green' AND month BETWEEN '$year-01-01' AND '$year-02-01'")"
done

echo "== two clones side by side"
for name in one two; do
  mkdir "$root/$name"
  cp -R docker "$root/$name/"
  rm -rf "$root/$name"/docker/{.env,data/*,secrets/*}
  [ "$(id -u)" != 0 ] || chown -R "${rootless:+0}${rootless:-1000}" "$root/$name"
done
LUIGID_PORT=$((PORT + 1)) clone one up --detach --no-build --wait luigid > "$root/one.log" 2>&1 || bad "the first starts"
LUIGID_PORT=$((PORT + 2)) clone two up --detach --no-build --wait luigid > "$root/two.log" 2>&1 || bad "the second starts"
first=$(clone one ps --quiet luigid)
check "each has a luigid of its own" [ -n "$first" -a "$first" != "$(clone two ps --quiet luigid)" ]
clone two down --volumes --timeout 5 > "$root/two.log" 2>&1 || bad "the second is removed"
is "when the second is removed with its volumes, the first goes on" "running 0" "$(docker inspect --format '{{.State.Status}} {{.RestartCount}}' "$first")"
check "with its volumes" [ "$(docker volume ls --quiet | grep -cF "$(docker inspect --format '{{index .Config.Labels "com.docker.compose.project"}}' "$first")_")" = 2 ]
if [ "$(id -u)" = 0 ] && [ -z "$rootless" ]; then
  chown -R 0:0 "$root/two"
  clone two up --detach --no-build luigid > "$root/two.log" 2>&1 && code=0 || code=$?
  is "with folders of somebody else, up ends with" 1 "$code"
  has "and says whose they are" "belongs to 0:0, and this runs as 1000:1000" "$root/two.log"
  chown -R 1000:1000 "$root/two/docker/data" "$root/two/docker/secrets"
  LUIGID_PORT=$((PORT + 2)) clone two up --detach --no-build --wait luigid > "$root/two.log" 2>&1 && code=0 || code=$?
  is "what it says to do helps" 0 "$code"
fi
for name in one two; do clone "$name" down --volumes --timeout 5 > /dev/null 2>&1 || bad "$name is removed"; done

echo "== memory"
compose up --detach --no-build --wait --wait-timeout 120 --scale worker=1 || bad "up again"
sleep 5
# shellcheck disable=SC2046 # One word for each container.
mib $(for name in luigid postgres worker schedule; do service "$name" | head -1; done) > "$root/memory"
sed 's/^/        /; s/$/ MiB/' "$root/memory"
sum=$(awk '{ sum += $2 } END { printf "%d", sum + 0.5 }' "$root/memory")
check "the default stack idles at $sum MiB, which is under 250 MB" [ $((sum * 1048576)) -lt 250000000 ]

echo "== Google Cloud"
gcp() { compose --profile gcp run --rm -T "$@"; }
gcp gcp status green 2024-01 > "$root/gcp.log" 2>&1 && code=0 || code=$?
is "without a key a question to Google Cloud ends with" 2 "$code"
has "and says what to do" "give Google Cloud credentials in one of three ways" "$root/gcp.log"
echo '{"type": "service_account", "private_key": "secret-of-verify"}' > "$root/credentials/google_credentials.json"
chown "$uid:$gid" "$root/credentials/google_credentials.json"
gcp gcp status green 2024-01 > "$root/gcp.log" 2>&1 && code=0 || code=$?
is "with a key file that is none" 2 "$code"
has "it says so" "google_credentials.json cannot be read as a key file" "$root/gcp.log"
check "and quotes nothing of it" bash -c "! grep -q secret-of-verify '$root/gcp.log'"
check "the key cannot be written" bash -c "! docker run --rm --user $uid --volume '$root/credentials:/k:ro' --entrypoint touch taxi-pipeline:latest /k/google_credentials.json 2> /dev/null"
gcp --entrypoint sh gcp -c 'echo x >> ~/.google/credentials/google_credentials.json' > /dev/null 2>&1 && code=0 || code=1
is "nor by the service" 1 "$code"
mv "$root/credentials" "$root/elsewhere"
gcp gcp status green 2024-01 > "$root/gcp.log" 2>&1 && code=0 || code=1
is "without the folder it is refused" 1 "$code"
has "by its name" "$root/credentials" "$root/gcp.log"
check "and not made" [ ! -e "$root/credentials" ]
compose run --rm -T cli status green 2024-01 > "$root/status.log" 2>&1 && code=0 || code=$?
is "all else works without it" 0 "$code"
mv "$root/elsewhere" "$root/credentials"
if [ "${GCLOUD:-0}" != 0 ]; then
  gcp gcloud --version > "$root/gcloud.log" 2>&1 || true
  has "gcloud runs as this user on a read-only file system" "Google Cloud SDK" "$root/gcloud.log"
else
  echo "  skip  gcloud (GCLOUD=1 tries it)"
fi

if [ "${EMULATORS:-1}" != 0 ]; then
  echo "== emulators"
  compose --profile emulators run --rm -T emulated backfill green 2024-01..2024-02 > "$root/emulated.log" 2>&1 && code=0 || code=$?
  is "a backfill into Cloud Storage and BigQuery ends with" 0 "$code"
  compose --profile emulators run --rm -T emulated sql 'SELECT count(DISTINCT month) FROM green' > "$root/emulated.log" 2>&1 || true
  has "and BigQuery has both months" 2 "$root/emulated.log"
  mib "$(service emulators)" | sed 's/^/        /; s/$/ MiB/'
else
  echo "  skip  emulators"
fi

echo "== somebody else's folder"
if [ "$(id -u)" = 0 ]; then
  mkdir -m 0755 "$root/foreign"
  TAXI_DATA=$root/foreign compose run --rm -T setup > "$root/foreign.log" 2>&1 && code=0 || code=$?
  is "setup refuses it" 1 "$code"
  has "and says whose it is" "belongs to 0:0, and this runs as $uid:$gid" "$root/foreign.log"
fi

echo "== stop"
began=$SECONDS
compose --profile '*' stop
check "all of it in $((SECONDS - began)) s" [ $((SECONDS - began)) -lt 30 ]
# The one that was killed is not there any more.
for id in $(containers); do
  docker inspect --format '{{index .Config.Labels "com.docker.compose.service"}} {{.State.ExitCode}} {{.State.OOMKilled}}' "$id"
done | sort -u > "$root/codes"
is "exit codes other than 0, or out of memory" "" "$(grep -v ' 0 false$' "$root/codes" || true)"

echo
echo "image: $(docker image inspect --format '{{.Size}}' taxi-pipeline:latest | awk '{ printf "%.0f MB", $1 / 1e6 }'), of which the base $(docker image inspect --format '{{.Size}}' "${PYTHON_IMAGE:-python:3.11-slim-bookworm}" 2> /dev/null | awk '{ printf "%.0f MB", $1 / 1e6 }')"
echo "$passed promises kept, $failed broken, in $SECONDS s"
[ "$failed" = 0 ]
