"""The command that prints what runs `pipeline latest` every day: for cron, systemd, Kubernetes and Compose."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import shlex
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from pipeline.datasets import DATASETS
from pipeline.errors import UsageError
from pipeline.tasks.parameters import DatasetsParameter

#: Where a container has the working folder.
_MOUNTED = "/taxi"
#: As docker/Dockerfile says that it is built.
_IMAGE = "taxi-pipeline:latest"


@dataclass(frozen=True)
class Job:
    """What is to be run, where, and at which minute of the night."""

    program: Path
    folder: Path
    arguments: tuple[str, ...]
    hour: int
    minute: int
    workers: int = 2


@click.command()
@click.argument("kinds", nargs=-1, metavar="[KIND]...", type=click.Choice(["cron", "systemd", "kubernetes", "compose"]))
@click.option("--datasets", default="all", show_default=True, help="Datasets with commas between them, or all.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 64), help="Processes side by side.")
@click.option("--scheduler", metavar="URL", help="A luigid; else that of [core] scheduler_url, or none.")
def schedule(kinds: tuple[str, ...], datasets: str, workers: int, scheduler: str | None) -> None:
    """Print a daily job that brings the latest months.

    It is ready to paste; nothing is installed. KIND is cron, systemd, kubernetes or compose; without any, all four. Run
    it in the folder where luigi.cfg is. TLC publishes once a month, about two months late: on most days there is
    nothing to do but one question per dataset. The minute comes from this machine's name and the folder, so that not
    all ask at once.

    \b
    pipeline schedule cron
    pipeline schedule systemd --datasets green,yellow --workers 4
    """  # noqa: D301 (click wants the character itself)
    job = _job(datasets, workers, scheduler)
    chosen = [kind for kind in _TEXTS if kind in kinds or not kinds]
    click.echo(_HEAD)
    if not (job.folder / "luigi.cfg").is_file():
        click.echo(
            f"# There is no luigi.cfg in {job.folder} yet: copy the project's, or failures end with exit code 0."
        )
    for kind in chosen:
        click.echo(f"\n# --- {kind}\n{_TEXTS[kind](job)}")


#: Why there is no lock is asked by everyone who has seen two cron jobs meet.
_HEAD = """\
# Months that are not published yet are no failure; after a pause, missing months are made up for.
# No lock is needed: steps are whole or not there, and two runs at once share or repeat work, but harm nothing.
# Settings must be in luigi.cfg: of PIPELINE_... variables of your shell these know nothing."""


def _cron(job: Job) -> str:
    words = shlex.join([str(job.program), *job.arguments, "--quiet"]) + " > /dev/null"
    command = f"cd {shlex.quote(str(job.folder))} && {words}"
    # To cron a percent sign is the end of the line.
    return (
        "# Add with: crontab -e. Cron mails what is said: only what went wrong.\n"
        f"{job.minute} {job.hour} * * * " + command.replace("%", r"\%")
    )


def _systemd(job: Job) -> str:
    # With such characters systemd takes no program, but any argument.
    by_name = ["/usr/bin/env"] * bool(set(str(job.program)) & set("'\"\\$"))
    command = " ".join(map(_systemd_word, [*by_name, str(job.program), *job.arguments]))
    return f"""\
# /etc/systemd/system/taxi-latest.service
[Unit]
Description=The latest months of New York taxi trips
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
User={_user()}
WorkingDirectory={str(job.folder).replace("%", "%%")}
ExecStart={command}
Nice=10

# /etc/systemd/system/taxi-latest.timer
[Unit]
Description=The latest months of New York taxi trips, every day

[Timer]
OnCalendar=*-*-* {job.hour:02}:{job.minute:02}:00
# A day on which the machine was off is made up for.
Persistent=true

[Install]
WantedBy=timers.target

# Then: systemctl daemon-reload && systemctl enable --now taxi-latest.timer
# Failures: systemctl status taxi-latest; journalctl -u taxi-latest"""


def _kubernetes(job: Job) -> str:
    words = json.dumps(["pipeline", *job.arguments], ensure_ascii=False)
    return f"""\
# kubectl apply -f - ; the image is built by: docker build -f docker/Dockerfile -t taxi-pipeline .
# Push it to a registry that the cluster reads, and write its name there below.
# The volume holds luigi.cfg, and data/ when lake and warehouse are a folder and DuckDB: then it must be kept, and one
# pod at a time has it (ReadWriteOnce). With gs:// and BigQuery it holds luigi.cfg and work in progress only.
apiVersion: batch/v1
kind: CronJob
metadata:
  name: taxi-latest
spec:
  schedule: "{job.minute} {job.hour} * * *"
  concurrencyPolicy: Forbid
  jobTemplate:
    spec:
      # A run that failed is tried again, at growing intervals; one that hangs is ended, before the next is due.
      backoffLimit: 3
      activeDeadlineSeconds: 43200
      template:
        spec:
          restartPolicy: Never
          securityContext:
            runAsNonRoot: true
            runAsUser: 10001
            runAsGroup: 10001
            # The volume's files are readable and writable for this group.
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
                # A worker takes up to 500 MB, and files that are written count until they are on the disk.
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
    # Another dollar sign keeps Compose from looking for a variable.
    loop = f"while :; do {shlex.join(['pipeline', *job.arguments])} && sleep 86400 || sleep 900; done"
    return f"""\
# Compose knows no times of day: it runs when it starts, then every 24 hours, and after a failure in 15 minutes.
# The image is built by: docker build -f docker/Dockerfile -t taxi-pipeline . ; docker/README.md has a stack with more.
services:
  latest:
    image: "{_IMAGE}"
    pull_policy: never
    working_dir: {_MOUNTED}
    entrypoint: ["sh", "-c"]
    command: {json.dumps([loop], ensure_ascii=False).replace("$", "$$")}
    # Who owns the files that it makes.
    user: "{os.getuid()}:{os.getgid()}"
    environment:
      LUIGI_CONFIG_PATH: {_MOUNTED}/luigi.cfg
    init: true
    restart: unless-stopped
    volumes:
      - type: bind
        source: {json.dumps(str(job.folder), ensure_ascii=False).replace("$", "$$")}
        target: {_MOUNTED}"""


_TEXTS: dict[str, Callable[[Job], str]] = {
    "cron": _cron,
    "systemd": _systemd,
    "kubernetes": _kubernetes,
    "compose": _compose,
}


def _job(datasets: str, workers: int, scheduler: str | None) -> Job:
    folder, program = Path.cwd(), Path(sys.executable).parent / "pipeline"
    for path in (folder, program):
        if not str(path).isprintable():
            raise UsageError(f"{str(path)!r}: no schedule can be written for a path with such characters")
    names = DatasetsParameter().parse(datasets)
    arguments = ["latest", *(names if names != (*DATASETS,) else ["all"]), "--workers", str(workers)]
    arguments += ["--scheduler", scheduler] if scheduler else []
    hour, minute = _time_of_day(f"{socket.gethostname()}:{folder}")
    return Job(program, folder, tuple(arguments), hour, minute, workers)


def _time_of_day(place: str) -> tuple[int, int]:
    """Between 2 and 6 in the morning, and not at a full hour, when everybody's jobs begin."""
    number = int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "big")
    return 2 + number // 59 % 4, 1 + number % 59


def _user() -> str:
    """This user's name, or number, which systemd takes as well, where the number has no name, as in containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _systemd_word(word: str) -> str:
    """A word of ExecStart as systemd reads it: specifiers, variables and quotes are escaped."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if set(word) & set(" '\";\\") else word
