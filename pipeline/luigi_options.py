"""Options of Luigi itself without which this package does not work as it should."""

from __future__ import annotations

from luigi.configuration import get_config

#: What Luigi itself must be told (luigi.cfg says why, line by line); the `pipeline` command falls back on these.
LUIGI_OPTIONS: dict[str, dict[str, str]] = {
    "core": {"autoload_range": "false", "no_lock": "true", "log_level": "INFO"},
    "worker": {
        "keep_alive": "true",
        "check_complete_on_run": "true",
        "task_process_context": "pipeline.tasks.process.TaskProcessContext",
        "wait_interval": "0.2",
        "wait_jitter": "0.2",
    },
    "scheduler": {
        "retry_count": "1",
        "retry_delay": "1",
        "disable_persist": "300",
        "stable_done_cooldown_secs": "0",
        "remove_delay": "86400",
    },
    "resources": {"tlc": "4", "cpu": "4", "duckdb": "1", "postgresql": "4", "bigquery": "4"},
    "retcode": {
        "task_failed": "1",
        "missing_data": "1",
        "unhandled_exception": "2",
        "not_run": "4",
        "scheduling_error": "5",
        "already_running": "6",
    },
}


def prepare_luigi() -> None:
    """Set the options of `LUIGI_OPTIONS` that no luigi.cfg sets."""
    config = get_config()
    for section, options in LUIGI_OPTIONS.items():
        for option, value in options.items():
            if not config.has_option(section, option):
                config.set(section, option, value)
