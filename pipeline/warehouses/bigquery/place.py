"""Where in BigQuery a warehouse is, as its URL says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl


@dataclass(frozen=True)
class Place:
    """A dataset of BigQuery, and what it is made with if it is not there."""

    project: str
    dataset: str
    location: str = "US"
    #: Days after which its tables vanish; None for never.
    expiration_days: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Whether a month is loaded into a table of its own and copied from there, instead of right into its partition.
    staged: bool = False

    @property
    def roles(self) -> str:
        """What an account needs."""
        return (
            f"roles/bigquery.jobUser on the project {self.project} and roles/bigquery.dataEditor on the dataset "
            f"{self.dataset} (roles/bigquery.user on the project, to make the dataset) to the account"
        )


def parse_place(url: str) -> Place | None:
    """The place that a URL such as bigquery://project/dataset?location=EU&expiration_days=30&label.team=data names.

    None when it is no such URL.
    """
    found = re.fullmatch(r"bigquery://([a-z][a-z0-9.:-]+)/(\w{1,1024})(?:\?(.*))?", url)
    if found is None:
        return None
    said = parse_qsl(found[3] or "", keep_blank_values=True)
    options = dict(said)
    labels = {key.removeprefix("label."): options.pop(key) for key in [*options] if key.startswith("label.")}
    days = options.pop("expiration_days", None)
    location = options.pop("location", "US")
    load = options.pop("load", "direct")
    sound = [
        not options,
        len({key for key, _ in said}) == len(said),
        re.fullmatch(r"[A-Za-z][\w-]*", location),
        load in ("direct", "staged"),
        days is None or re.fullmatch(r"[1-9]\d{0,4}", days),
        # https://cloud.google.com/bigquery/docs/labels-intro#requirements
        all(re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key) for key in labels),
        all(re.fullmatch(r"[a-z0-9_-]{0,63}", text) for text in labels.values()),
    ]
    if not all(sound):
        return None
    return Place(found[1], found[2], location, int(days) if days else None, labels, load == "staged")
