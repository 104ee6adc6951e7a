#!/bin/bash
# Builds the images and tests the whole stack on the local Docker engine, with its own folders, volumes and project, which
# it deletes at the end; after a failure the logs are kept. It needs bash and docker with compose; once the images are
# built, no internet. It takes about ten minutes. Exit code 0 means that every check passed.
#
#   docker/verify.sh
#   NO_BUILD=1                use existing images (taxi-pipeline:latest, taxi-pipeline-emulators:latest)
#   BUILD_ONLY=1              only build the images
#   BUILD_ARGS="…"            more options for docker build, such as --network host or --build-arg PYTHON_IMAGE=…
#   EMULATORS=0               without the emulators of Google Cloud
#   GCLOUD=1                  with the gcloud image, which needs Google's package repository
#   PORT=18082                port of 127.0.0.1 for the board and luigid
#   REACH="…"                 command before curl, if ports are published in another network namespace
set -euo pipefail
cd "$(dirname "$0")/.."
PORT=${PORT:-18082}

passed=0 failed=0
ok() { echo "  ok    $*"; passed=$((passed + 1)); }
bad() { echo "  FAIL  $*"; failed=$((failed + 1)); }
check() { # CHECK COMMAND...
  local title=$1
  shift
  if "$@"; then ok "$title"; else bad "$title"; fi
}
is() { # CHECK EXPECTED ACTUAL
  if [ "$2" = "$3" ]; then ok "$1: $3"; else bad "$1: '$3', expected '$2'"; fi
}
has() { # CHECK TEXT FILE
  if grep -qF -- "$2" "$3"; then ok "$1"; else
    bad "$1: no '$2' in:"
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
  # shellcheck disable=SC2086 # BUILD_ARGS has several options.
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
  # There, root in a container is the user outside.
  *name=rootless*) rootless=1 ;;
  *) rootless= ;;
esac
# Root can write everywhere, so use another user.
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
    echo "logs of commands, containers and steps are in $root"
  fi
}
trap finish EXIT

# taxi.sh in another clone, which needs only docker/.
clone() { (cd "$root" && env -u PIPELINE_UID "$1/docker/taxi.sh" --progress quiet "${@:2}"); }
containers() { docker ps --all --quiet --filter "label=com.docker.compose.project=$project" "$@"; }
service() { containers --filter "label=com.docker.compose.service=$1"; }
rows() { compose exec -T postgres psql -XAtU taxi ny_taxi -c "$1"; }
# The state of luigid: "host step" of each running step, or the number of finished steps.
luigid_state() {
  compose exec -T luigid python -c "
import json, urllib.parse as p, urllib.request as u
def tasks(status):
    data = p.urlencode({'data': json.dumps({'status': status, 'upstream_status': '', 'limit': False})})
    return json.load(u.urlopen('http://127.0.0.1:$PORT/api/task_list?' + data))['response']
if '$1' == 'finished':
    print(len(tasks('DONE')))
else:
    for task in tasks('RUNNING').values():
        print(task['worker_running'].partition('host=')[2].partition(',')[0], task['display_name'])
"
}
mib() { # Resident memory of each container, in MiB
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
    check "$name is not root, has no capabilities and cannot get any ($facts)" [ "${facts#* }" = "1 1" -a "${facts%% *}" != 0 ]
    check "$name cannot write its own files" bash -c "! docker exec $id touch /verify 2> /dev/null"
    break
  done
done
is "only 127.0.0.1 is published" "127.0.0.1:$PORT" "$(docker ps --filter "label=com.docker.compose.project=$project" --format '{{.Ports}}' | grep -oE '[0-9.:]+:[0-9]+->' | sort -u | tr -d '>-')"
if command -v curl > /dev/null; then
  status() { ${REACH:-} curl -s -o "$root/page" -w '%{http_code}' "$@" || true; }
  board=http://127.0.0.1:$PORT
  is "the board asks for its link" 403 "$(status "$board/")"
  link=$(compose exec -T luigid pipeline board --link --port "$PORT")
  is "the link opens it" 200 "$(status --cookie-jar "$root/cookies" "$link")"
  is "only once" 403 "$(status "$link")"
  is "then the browser has a cookie" 200 "$(status --cookie "$root/cookies" "$board/")"
  has "which shows the months" green "$root/page"
  check "no log has a token" bash -c "! docker logs $(service luigid) 2>&1 | grep -q token"
  is "the visualiser answers" 200 "$(status --cookie "$root/cookies" "$board/luigid/static/visualiser/index.html")"
  is "another web page cannot use luigid" 403 "$(status --header 'Origin: http://evil.example' --data 'data={}' "$board/api/prune")"
fi

reaches() { docker exec "$(service "$1" | head -1)" timeout 3 bash -c ": > /dev/tcp/$2/$3" 2> /dev/null; }
check "a worker reaches luigid and Postgres" eval "reaches worker luigid $PORT && reaches worker postgres 5432"
check "a service that needs neither reaches neither" eval "! reaches sample luigid $PORT && ! reaches sample postgres 5432"

echo "== schedule"
scheduled() { [ "$(compose exec -T schedule cat /tmp/schedule)" = 0 ]; }
check "the latest months are loaded" until_true 120 scheduled
newest=$(date -d "$(date +%Y-%m-01) -2 months" +%Y-%m-01)
is "the newest month is the newest published one" "$newest" "$(rows 'SELECT max(month) FROM green')"
compose run --rm -T --env TAXI_DATASETS=blue schedule > "$root/schedule.log" 2>&1 &
retried=$!
retries() { grep -q "schedule: exit code 2; next run in 60 s" "$root/schedule.log"; }
check "after a failure it does not wait for a day" until_true 30 retries
docker stop "$(containers --filter label=com.docker.compose.oneoff=True --filter label=com.docker.compose.service=schedule)" > /dev/null
wait "$retried" || true
# A container has its own ENTRYPOINT, and a user without a name.
printed=$(compose run --rm -T --no-deps --user 4321:4321 cli schedule systemd 2> "$root/printed.log") || true
check "its unit for systemd works for a user without a name" grep -q '^User=4321$' <<< "$printed"
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
check "its file for Compose runs without changes" until_true 60 test -s "$root/pasted/data/warehouse.duckdb"
pasted down --timeout 1 > /dev/null 2>&1

echo "== backfill"
compose run --rm -T cli backfill yellow green 2024-01..2024-03 > "$root/backfill.log" 2>&1 && code=0 || code=$?
is "backfill yellow green 2024-01..2024-03 ends with" 0 "$code"
is "its months in Postgres" 6 "$(rows "SELECT count(*) FROM loads WHERE month BETWEEN '2024-01-01' AND '2024-03-01'")"
is "months whose rows differ from their record" 0 "$(rows "SELECT count(*) FROM (SELECT month, count(*) AS n FROM green GROUP BY 1) AS t JOIN loads AS l ON l.month = t.month AND l.dataset = 'green' WHERE l.rows <> t.n")"
count=$(rows "SELECT count(*) FROM yellow WHERE month BETWEEN '2024-01-01' AND '2024-03-01'")
check "yellow has a hundredth of TLC's 9,554,778 rows of these months ($count)" [ "$count" -gt 85000 -a "$count" -lt 106000 ]
is "its months in the marts" 6 "$(rows "SELECT count(DISTINCT (dataset, month)) FROM daily_trips WHERE month BETWEEN '2024-01-01' AND '2024-03-01'")"
is "files of other users" "" "$(find "$root/data" "$root/secrets" ! -uid "$uid" -o ! -gid "$gid")"
is "files and folders that everyone can write" "" "$(find "$root/data" "$root/secrets" -perm -0002 ! -type l)"
compose run --rm -T cli backfill green 2024-01..2024-03 > "$root/again.log" 2>&1 && code=0 || code=$?
is "the same backfill again, with nothing to do, ends with" 0 "$code"

echo "== secrets"
password=$(cat "$root/secrets/postgres_password")
# shellcheck disable=SC2046 # One word per container.
docker inspect $(containers) > "$root/inspected"
check "docker inspect does not show the password" bash -c "! grep -q '$password' '$root/inspected'"
check "docker compose config does not show it" bash -c "! grep -q '$password' <<< \"\$0\"" "$(compose config)"
check "Postgres requires it" bash -c "! docker exec $(service worker | head -1) env PGPASSFILE=/dev/null python -c 'import psycopg; psycopg.connect(\"postgresql://taxi@postgres/ny_taxi\")' 2> /dev/null"

echo "== a stopped worker, a killed worker"
compose run --rm -T cli backfill green 2019-01..2019-04 --workers 1 > "$root/killed.log" 2>&1 &
backfill=$!
workers=$(service worker)
holding() { # Whether so many workers are running a step
  luigid_state running > "$root/running"
  local id n=0
  for id in $workers; do ! grep -q "^${id:0:12} " "$root/running" || n=$((n + 1)); done
  [ "$n" -ge "$1" ]
}
check "each worker runs a step of another container's run" until_true 30 holding 3
sed 's/^/        /' "$root/running"
# shellcheck disable=SC2086 # One word per container.
set -- $workers
stopped=$1 killed=$2
began=$SECONDS
docker stop "$stopped" > /dev/null
check "the stopped worker ends in $((SECONDS - began)) s" [ $((SECONDS - began)) -lt 10 ]
is "its exit code" 0 "$(docker inspect --format '{{.State.ExitCode}}' "$stopped")"
docker logs "$stopped" > "$root/stopped.log" 2>&1
has "it returns its step" "worker: returned Download_green_" "$root/stopped.log"
docker kill "$killed" > /dev/null
began=$SECONDS
wait "$backfill" && code=0 || code=$?
is "the run continues without both, and ends with" 0 "$code"
echo "        $((SECONDS - began)) s after the kill"
is "loaded months" 4 "$(rows "SELECT count(*) FROM loads WHERE dataset = 'green' AND month BETWEEN '2019-01-01' AND '2019-04-01'")"
is "months that were loaded twice" 0 "$(rows "SELECT count(*) FROM (SELECT month, count(*) AS n FROM green GROUP BY 1) AS t JOIN loads AS l ON l.month = t.month AND l.dataset = 'green' WHERE l.rows <> t.n")"

echo "== luigid"
before=$(luigid_state finished)
compose restart luigid
until_true 30 luigid_state finished > "$root/done" 2> /dev/null
is "after a restart it has the number of finished steps" "$before" "$(tail -1 "$root/done")"
check "there were some" [ "$before" -gt 20 ]
check "no worker was restarted" bash -c "! docker inspect --format '{{.RestartCount}}' $(service worker | tr '\n' ' ') | grep -qv '^0$'"

echo "== too little memory"
docker run --rm --init --user "$uid:$gid" --memory 110m --memory-swap 110m --network "${project}_default" --tmpfs /tmp \
  --env PIPELINE_SOURCE=http://sample:8000 --env PIPELINE_LAKE=/tmp/lake --env PIPELINE_LOGS=/tmp/logs \
  --env PIPELINE_WAREHOUSE=duckdb:////tmp/warehouse.duckdb taxi-pipeline:latest backfill yellow 2024-05 --workers 2 \
  > "$root/memory.log" 2>&1 && code=0 || code=$?
if [ -n "$rootless" ] && [ "$code" = 0 ]; then
  echo "  skip  this engine does not limit memory"
else
  is "a backfill with too little memory ends with" 1 "$code"
  has "with this message" "the step's process was killed (signal 9), most likely because the machine ran out of memory" "$root/memory.log"
fi

for name in luigid postgres; do
  echo "== $name is killed during a backfill"
  year=2018
  [ "$name" = luigid ] || year=2017
  compose run --rm -T cli backfill green "$year-01..$year-02" > "$root/$name.log" 2>&1 &
  backfill=$!
  running() { luigid_state running | grep -q "month=$year"; }
  check "a step runs" until_true 30 running
  docker kill "$(service "$name")" > /dev/null
  began=$SECONDS
  wait "$backfill" && code=0 || code=$?
  check "the backfill ends with exit code 1 or 4 ($code), $((SECONDS - began)) s after the kill" [ "$code" = 1 -o "$code" = 4 ]
  check "without a traceback" bash -c "! grep -q Traceback '$root/$name.log'"
  # The end of the summary, without the messages of the steps.
  sed -n '/^warehouse  /,$p' "$root/$name.log" | tail -n +2 > "$root/$name-end.log"
  is "with one message" 1 "$(grep -ciE "$name.* (answer|connection|resolve)|connection to $name" "$root/$name-end.log")"
  sed 's/^/        /' "$root/$name-end.log"
  compose run --rm -T cli backfill green "$year-01..$year-02" > "$root/$name-again.log" 2>&1 && code=0 || code=$?
  is "the same command starts $name again and completes" 0 "$code"
  is "loaded months" 2 "$(rows "SELECT count(*) FROM loads WHERE dataset = 'green' AND month BETWEEN '$year-01-01' AND '$year-02-01'")"
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
check "each has its own luigid" [ -n "$first" -a "$first" != "$(clone two ps --quiet luigid)" ]
clone two down --volumes --timeout 5 > "$root/two.log" 2>&1 || bad "the second is removed"
is "after the second is removed with its volumes, the first still runs" "running 0" "$(docker inspect --format '{{.State.Status}} {{.RestartCount}}' "$first")"
check "with its volumes" [ "$(docker volume ls --quiet | grep -cF "$(docker inspect --format '{{index .Config.Labels "com.docker.compose.project"}}' "$first")_")" = 1 ]
if [ "$(id -u)" = 0 ] && [ -z "$rootless" ]; then
  chown -R 0:0 "$root/two"
  clone two up --detach --no-build luigid > "$root/two.log" 2>&1 && code=0 || code=$?
  is "with another user's folders, up ends with" 1 "$code"
  has "and shows the owner" "belongs to 0:0, but the container runs as 1000:1000" "$root/two.log"
  chown -R 1000:1000 "$root/two/docker/data" "$root/two/docker/secrets"
  LUIGID_PORT=$((PORT + 2)) clone two up --detach --no-build --wait luigid > "$root/two.log" 2>&1 && code=0 || code=$?
  is "after the remedy it ends with" 0 "$code"
fi
for name in one two; do clone "$name" down --volumes --timeout 5 > /dev/null 2>&1 || bad "$name is removed"; done

echo "== memory"
compose up --detach --no-build --wait --wait-timeout 120 --scale worker=1 || bad "up again"
sleep 5
# shellcheck disable=SC2046 # One word per container.
mib $(for name in luigid postgres worker schedule; do service "$name" | head -1; done) > "$root/memory"
sed 's/^/        /; s/$/ MiB/' "$root/memory"
sum=$(awk '{ sum += $2 } END { printf "%d", sum + 0.5 }' "$root/memory")
check "the default stack at rest has $sum MiB, less than 250 MB" [ $((sum * 1048576)) -lt 250000000 ]

echo "== Google Cloud"
gcp() { compose --profile gcp run --rm -T "$@"; }
gcp gcp status green 2024-01 > "$root/gcp.log" 2>&1 && code=0 || code=$?
is "without a key, status ends with" 2 "$code"
has "and shows the remedy" "give Google Cloud credentials in one of three ways" "$root/gcp.log"
echo '{"type": "service_account", "private_key": "secret-of-verify"}' > "$root/credentials/google_credentials.json"
chown "$uid:$gid" "$root/credentials/google_credentials.json"
gcp gcp status green 2024-01 > "$root/gcp.log" 2>&1 && code=0 || code=$?
is "with an invalid key file it ends with" 2 "$code"
has "with this message" "google_credentials.json cannot be read as a key file" "$root/gcp.log"
check "without quoting the file" bash -c "! grep -q secret-of-verify '$root/gcp.log'"
check "a read-only mount of the key cannot be written" bash -c "! docker run --rm --user $uid --volume '$root/credentials:/k:ro' --entrypoint touch taxi-pipeline:latest /k/google_credentials.json 2> /dev/null"
gcp --entrypoint sh gcp -c 'echo x >> ~/.google/credentials/google_credentials.json' > /dev/null 2>&1 && code=0 || code=1
is "the service cannot write the key" 1 "$code"
mv "$root/credentials" "$root/elsewhere"
gcp gcp status green 2024-01 > "$root/gcp.log" 2>&1 && code=0 || code=1
is "without the folder it ends with" 1 "$code"
has "and names the folder" "$root/credentials" "$root/gcp.log"
check "and does not create it" [ ! -e "$root/credentials" ]
compose run --rm -T cli status green 2024-01 > "$root/status.log" 2>&1 && code=0 || code=$?
is "other services work without it" 0 "$code"
mv "$root/elsewhere" "$root/credentials"
if [ "${GCLOUD:-0}" != 0 ]; then
  gcp gcloud --version > "$root/gcloud.log" 2>&1 || true
  has "gcloud runs as this user on a read-only file system" "Google Cloud SDK" "$root/gcloud.log"
else
  echo "  skip  gcloud (GCLOUD=1 tests it)"
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

echo "== another user's folder"
if [ "$(id -u)" = 0 ]; then
  mkdir -m 0755 "$root/foreign"
  TAXI_DATA=$root/foreign compose run --rm -T setup > "$root/foreign.log" 2>&1 && code=0 || code=$?
  is "setup ends with" 1 "$code"
  has "and shows the owner" "belongs to 0:0, but the container runs as $uid:$gid" "$root/foreign.log"
fi

echo "== stop"
began=$SECONDS
compose --profile '*' stop
check "all services stop in $((SECONDS - began)) s" [ $((SECONDS - began)) -lt 30 ]
# The killed worker no longer exists.
for id in $(containers); do
  docker inspect --format '{{index .Config.Labels "com.docker.compose.service"}} {{.State.ExitCode}} {{.State.OOMKilled}}' "$id"
done | sort -u > "$root/codes"
is "containers with other exit codes than 0, or out of memory" "" "$(grep -v ' 0 false$' "$root/codes" || true)"

echo
echo "image: $(docker image inspect --format '{{.Size}}' taxi-pipeline:latest | awk '{ printf "%.0f MB", $1 / 1e6 }'), of which the base $(docker image inspect --format '{{.Size}}' "${PYTHON_IMAGE:-python:3.11-slim-bookworm}" 2> /dev/null | awk '{ printf "%.0f MB", $1 / 1e6 }')"
echo "$passed checks passed, $failed failed, in $SECONDS s"
[ "$failed" = 0 ]
