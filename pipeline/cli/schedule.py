"""The command that prints a daily job for `pipeline latest`: for cron, systemd, Kubernetes and Compose."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from pipeline.datasets import DATASETS
from pipeline.tasks.parameters import DatasetsParameter

#: The working folder in a container, and the image that docker/Dockerfile builds.
_MOUNTED, _IMAGE = "/taxi", "taxi-pipeline:latest"
#: Most people who have seen two cron jobs overlap ask for a lock.
_HEAD = """\
# A month that is not published yet is not a failure. After a pause, all missing months are included.
# No lock is needed: a step is complete or absent, and two runs at the same time share or repeat work without harm.
# Settings must be in luigi.cfg: the job does not have the PIPELINE_... variables of your shell."""


@dataclass(frozen=True)
class Job:
    """The command, its working folder, and its time of day."""

    program: Path
    folder: Path
    arguments: tuple[str, ...]
    hour: int
    minute: int
    workers: int = 2


@click.command()
@click.argument("kinds", nargs=-1, metavar="[KIND]...", type=click.Choice(["cron", "systemd", "kubernetes", "compose"]))
@click.option("--datasets", default="all", show_default=True, help="Datasets separated by commas, or all.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 64), help="Number of processes.")
@click.option("--scheduler", metavar="URL", help="Address of a luigid.  [default: that of luigi.cfg, or none]")
def schedule(kinds: tuple[str, ...], datasets: str, workers: int, scheduler: str | None) -> None:
    """Print a daily job that brings the latest months.

    The text is ready to paste; nothing is installed. KIND is cron, systemd, kubernetes or compose; the default is all
    four. Run it in the folder of your luigi.cfg. TLC publishes once a month, about two months late: on most days the
    job only asks once per dataset. The time is derived from the name of this machine and the folder, so that not all
    users ask at the same time.

    \b
    pipeline schedule cron
    pipeline schedule systemd --datasets green,yellow --workers 4
    """  # noqa: D301 (click needs the character itself)
    folder, names = Path.cwd(), DatasetsParameter().parse(datasets)
    arguments = ["latest", *(names if names != (*DATASETS,) else ["all"]), "--workers", str(workers)]
    arguments += ["--scheduler", scheduler] if scheduler else []
    hour, minute = _time_of_day(f"{socket.gethostname()}:{folder}")
    job = Job(Path(sys.executable).parent / "pipeline", folder, tuple(arguments), hour, minute, workers)
    click.echo(_HEAD)
    if not (folder / "luigi.cfg").is_file():
        click.echo(f"# There is no luigi.cfg in {folder} yet: copy the project's, or failures end with exit code 0.")
    for name, text in _TEXTS.items():
        if name in kinds or not kinds:
            click.echo(f"\n# --- {name}\n{text(job)}")


def _cron(job: Job) -> str:
    words = shlex.join([str(job.program), *job.arguments, "--quiet"]) + " > /dev/null"
    command = f"cd {shlex.quote(str(job.folder))} && {words}"
    line = f"{job.minute} {job.hour} * * * " + command.replace("%", r"\%")  # For cron, % is the end of the line.
    return f"# Add with: crontab -e. Cron mails the output: only errors and warnings.\n{line}"


def _systemd(job: Job) -> str:
    command = " ".join(map(_systemd_word, [str(job.program), *job.arguments]))
    return f"""\
# /etc/systemd/system/taxi-latest.service
[Unit]
Description=The latest months of New York taxi trips
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
User={os.getuid()}
WorkingDirectory={str(job.folder).replace("%", "%%")}
ExecStart={command}
Nice=10

# /etc/systemd/system/taxi-latest.timer
[Unit]
Description=The latest months of New York taxi trips, every day

[Timer]
OnCalendar=*-*-* {job.hour:02}:{job.minute:02}:00
# If the machine was off at that time, run at the next start.
Persistent=true

[Install]
WantedBy=timers.target

# Then: systemctl daemon-reload && systemctl enable --now taxi-latest.timer
# Failures: systemctl status taxi-latest; journalctl -u taxi-latest"""


def _kubernetes(job: Job) -> str:
    words = json.dumps(["pipeline", *job.arguments], ensure_ascii=False)
    return f"""\
# kubectl apply -f - ; build the image with: docker build -f docker/Dockerfile -t taxi-pipeline .
# Push it to a registry of your cluster, and set its name below.
# The volume has luigi.cfg, and data/ if lake and warehouse are a folder and DuckDB: then keep it, and let one pod at a
# time use it (ReadWriteOnce). With gs:// and BigQuery it has only luigi.cfg and work in progress.
apiVersion: batch/v1
kind: CronJob
metadata:
  name: taxi-latest
spec:
  schedule: "{job.minute} {job.hour} * * *"
  concurrencyPolicy: Forbid
  jobTemplate:
    spec:
      # A failed run is retried after growing intervals; one that hangs is stopped before the next one starts.
      backoffLimit: 3
      activeDeadlineSeconds: 43200
      template:
        spec:
          restartPolicy: Never
          securityContext:
            runAsNonRoot: true
            runAsUser: 10001
            runAsGroup: 10001
            # This group can read and write the files of the volume.
            fsGroup: 10001
            fsGroupChangePolicy: OnRootMismatch
            seccompProfile: {{type: RuntimeDefault}}
          containers:
            - name: latest
              image: "{_IMAGE}"
              workingDir: {_MOUNTED}
              command: {words}
              env:
                - name: LUIGI_CONFIG_PATH
                  value: {_MOUNTED}/luigi.cfg
              securityContext:
                allowPrivilegeEscalation: false
                readOnlyRootFilesystem: true
                capabilities: {{drop: [ALL]}}
              resources:
                # A worker takes up to 500 MB; written files count too until they are on the disk.
                requests: {{cpu: "1", memory: {job.workers}Gi}}
                limits: {{memory: {job.workers + 1}Gi}}
              volumeMounts:
                - name: taxi
                  mountPath: {_MOUNTED}
                - name: tmp
                  mountPath: /tmp
          volumes:
            - name: taxi
              persistentVolumeClaim:
                claimName: taxi
            - name: tmp
              emptyDir: {{sizeLimit: 1Gi}}"""


def _compose(job: Job) -> str:
    # In Compose, $$ is a dollar sign that does not begin a variable.
    loop = f"while :; do {shlex.join(['pipeline', *job.arguments])} && sleep 86400 || sleep 900; done"
    return f"""\
# Compose has no time of day: the job runs at the start, then every 24 hours, and 15 minutes after a failure.
# Build the image with: docker build -f docker/Dockerfile -t taxi-pipeline . ; docker/README.md has a larger stack.
services:
  latest:
    image: "{_IMAGE}"
    pull_policy: never
    working_dir: {_MOUNTED}
    entrypoint: ["sh", "-c"]
    command: {json.dumps([loop], ensure_ascii=False).replace("$", "$$")}
    # The owner of the files that it writes.
    user: "{os.getuid()}:{os.getgid()}"
    environment:
      LUIGI_CONFIG_PATH: {_MOUNTED}/luigi.cfg
    init: true
    restart: unless-stopped
    volumes:
      - type: bind
        source: {json.dumps(str(job.folder), ensure_ascii=False).replace("$", "$$")}
        target: {_MOUNTED}"""


_TEXTS = {"cron": _cron, "systemd": _systemd, "kubernetes": _kubernetes, "compose": _compose}


def _time_of_day(seed: str) -> tuple[int, int]:
    """An hour and a minute between 2 and 6 in the morning, but not a full hour, when many other jobs start."""
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")
    return 2 + number // 59 % 4, 1 + number % 59


def _systemd_word(word: str) -> str:
    """A word of ExecStart, with specifiers, variables and quotes escaped for systemd."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if set(word) & set(" '\";\\") else word
