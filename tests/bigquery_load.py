"""BigQuery's load jobs on bqemulator 1.4, for bigquery_shim.py, which says in what they differ from the emulator's own.

A file goes into a scratch table of its own columns, then, in one go, column by column into its table.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import requests

API = "/bigquery/v2"
Json = dict[str, Any]

_TIMEOUT_S = 120
_HIVE_KEY = re.compile(r"\{(?P<name>\w+):(?P<type>\w+)\}")
#: BigQuery's names for types, one for each.
_STANDARD = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}


class JobError(Exception):
    """Why a job fails, as BigQuery says it: https://cloud.google.com/bigquery/docs/error-messages."""

    def __init__(self, reason: str, message: str, location: str | None = None) -> None:
        super().__init__(message)
        self.proto = {"reason": reason, "message": message} | ({"location": location} if location else {})

    @classmethod
    def of(cls, answer: Json) -> JobError:
        """The first error that an answer of the emulator tells."""
        told = (
            answer.get("error", {}).get("errors")
            or answer.get("errors")
            or [answer.get("status", {}).get("errorResult", {})]
        )
        return cls(told[0].get("reason", "internalError"), told[0].get("message", str(answer)))


@dataclass(frozen=True)
class TableName:
    """A table's full name."""

    project: str
    dataset: str
    table: str

    def __str__(self) -> str:
        return f"{self.project}:{self.dataset}.{self.table}"

    @property
    def reference(self) -> Json:
        return {"projectId": self.project, "datasetId": self.dataset, "tableId": self.table}

    @property
    def sql(self) -> str:
        return f"`{self.project}`.`{self.dataset}`.`{self.table}`"

    @property
    def siblings(self) -> str:
        """The path of its dataset's tables."""
        return f"{API}/projects/{self.project}/datasets/{self.dataset}/tables"

    @property
    def path(self) -> str:
        return f"{self.siblings}/{self.table}"


@dataclass(frozen=True)
class Emulator:
    """The emulator itself, asked without its gateway."""

    url: str
    gcs_root: Path

    def ask(self, method: str, path: str, body: Json | None = None) -> tuple[int, Json]:
        """Its answer as it is."""
        response = requests.request(method, self.url + path, json=body, timeout=_TIMEOUT_S)
        return response.status_code, response.json() if response.content else {}

    def do(self, method: str, path: str, body: Json | None = None) -> Json:
        """Its answer.

        Raises:
            JobError: it refuses.
        """
        status, answer = self.ask(method, path, body)
        if status >= 300 or answer.get("errors") or answer.get("status", {}).get("errorResult"):
            raise JobError.of(answer)
        return answer

    def query(self, sql: str) -> list[list[str]]:
        """The rows that it answers, as text.

        Raises:
            JobError: it refuses.
        """
        found = self.do("POST", f"{API}/projects/shim/queries", {"query": sql, "useLegacySql": False})
        return [[cell["v"] for cell in row["f"]] for row in found.get("rows", [])]

    def table(self, name: TableName) -> Json | None:
        """The table's resource; None if there is no such table."""
        status, found = self.ask("GET", name.path)
        return found if status == 200 else None

    def add_columns(self, name: TableName, fields: list[Json]) -> None:
        """Give the data the columns among these fields that it lacks; the catalog is left alone.

        Raises:
            JobError: the fields are not those of the table and new nullable ones.
        """
        there = types((self.table(name) or {})["schema"]["fields"])
        wanted = types(fields)
        mismatch = f"Provided Schema does not match Table {name}."
        for column, kind in there.items():
            if column not in wanted:
                raise JobError("invalid", f"{mismatch} Field {column} is missing in new schema")
            if wanted[column] != kind:
                raise JobError("invalid", f"{mismatch} Field {column} has changed type from {kind} to {wanted[column]}")
        added = [field for field in fields if field["name"] not in there]
        for field in added:
            if field.get("mode") == "REQUIRED":
                raise JobError(
                    "invalid", f"{mismatch} Cannot add required fields to an existing schema. (field: {field['name']})"
                )
        for field in added:
            self.query(f"ALTER TABLE {name.sql} ADD COLUMN `{field['name']}` {wanted[field['name']]}")


def bigquery_type(kind: pa.DataType) -> str:
    """What a Parquet column becomes: https://cloud.google.com/bigquery/docs/loading-data-cloud-storage-parquet.

    No column becomes a DATETIME by itself: only a schema that is given can ask for that.

    Raises:
        JobError: nothing that is known here.
    """
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP"
    known = {
        "INT64": pa.types.is_integer,
        "FLOAT64": pa.types.is_floating,
        "BOOL": pa.types.is_boolean,
        "STRING": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
        "DATE": pa.types.is_date32,
        "NUMERIC": pa.types.is_decimal,
    }
    found = next((name for name, fits in known.items() if fits(kind)), None)
    if found is None:
        raise JobError("invalid", f"Error while reading data, error message: unsupported type {kind}")
    return found


def types(fields: list[Json]) -> dict[str, str]:
    """The types of a schema's fields by name."""
    return {field["name"]: _STANDARD.get(field["type"], field["type"]) for field in fields}


class Load:
    """One load job of Parquet files, as `configuration.load` describes it."""

    def __init__(self, emulator: Emulator, project: str, load: Json) -> None:
        destination = load["destinationTable"]
        table, _, self.partition = destination["tableId"].partition("$")
        self.name = TableName(destination.get("projectId", project), destination["datasetId"], table)
        self.emulator, self.load = emulator, load
        self.truncates = load.get("writeDisposition") == "WRITE_TRUNCATE"
        self.scratch = TableName("shim", "scratch", f"load_{uuid.uuid4().hex}")
        self.fields: list[Json] = load.get("schema", {}).get("fields", [])

    def run(self) -> int:
        """Do it; return how many rows were loaded.

        Raises:
            JobError: it cannot be done; the table is as it was.
        """
        columns = self._columns()
        try:
            self._fill_scratch(columns)
            table = self._destination(columns)
            self._check_columns(columns, table)
            self._move(columns, self._rows_to_replace(table))
            return int(self.emulator.query(f"SELECT COUNT(*) FROM {self.scratch.sql}")[0][0])
        finally:
            self.emulator.ask("DELETE", self.scratch.path)

    def _columns(self) -> dict[str, str]:
        """Names and types of the first file's columns, as the given schema wants them, then of the path's keys."""
        for address in self.load["sourceUris"]:
            if not (self.emulator.gcs_root / address.removeprefix("gs://")).is_file():
                raise JobError("notFound", f"Not found: URI {address}", address)
        address = self.load["sourceUris"][0]
        try:
            schema = pq.read_schema(self.emulator.gcs_root / address.removeprefix("gs://"))
        except pa.ArrowInvalid as error:
            raise JobError("invalid", f"Error while reading data, error message: {error}", address) from error
        given, keys = types(self.fields), self._keys()
        if named := sorted(given.keys() & keys.keys()):
            # https://cloud.google.com/bigquery/docs/hive-partitioned-loads-gcs: keys are no columns of the files.
            raise JobError("invalid", f"The schema names the partition keys {named} of {address}", address)
        inferred = {field.name: bigquery_type(field.type) for field in schema}
        wanted = {
            name: "DATETIME" if (kind, given.get(name)) == ("TIMESTAMP", "DATETIME") else kind
            for name, kind in inferred.items()
        }
        return wanted | keys

    def _keys(self) -> dict[str, str]:
        """The keys that the path of every file holds, with their types."""
        prefix = self.load.get("hivePartitioningOptions", {}).get("sourceUriPrefix", "")
        keys = {found["name"]: found["type"] for found in _HIVE_KEY.finditer(prefix)}
        layout = re.escape(prefix.partition("{")[0]) + "".join(f"{name}=[^/]+/" for name in keys)
        for address in self.load["sourceUris"]:
            if not re.match(layout, address):
                raise JobError("invalid", f"Partition keys {sorted(keys)} of {prefix} are not in {address}", address)
        return keys

    def _fill_scratch(self, columns: dict[str, str]) -> None:
        self.emulator.ask(
            "POST", f"{API}/projects/shim/datasets", {"datasetReference": {"datasetId": self.scratch.dataset}}
        )
        schema = {"fields": [{"name": name, "type": kind} for name, kind in columns.items()]}
        load = {key: self.load[key] for key in ("sourceUris", "sourceFormat")}
        load |= {"destinationTable": self.scratch.reference, "schema": schema}
        self.emulator.do("POST", f"{API}/projects/shim/jobs", {"configuration": {"load": load}})

    def _destination(self, columns: dict[str, str]) -> Json:
        """The table, made if need be; of the load's own schema if all of it is replaced."""
        table = self.emulator.table(self.name)
        if table is None and self.load.get("createDisposition") == "CREATE_NEVER":
            raise JobError("notFound", f"Not found: Table {self.name}")
        if table and not (self.truncates and not self.partition):
            return table
        fields = self.fields or [{"name": name, "type": kind} for name, kind in columns.items()]
        if table and types(table["schema"]["fields"]) == types(fields):
            return self.emulator.do("PATCH", self.name.path, {"schema": {"fields": fields}})
        kept = table or self.load
        body = {key: kept[key] for key in ("description", "labels", "timePartitioning", "clustering") if key in kept}
        if table:
            self.emulator.do("DELETE", self.name.path)
        return self.emulator.do(
            "POST", self.name.siblings, body | {"tableReference": self.name.reference, "schema": {"fields": fields}}
        )

    def _check_columns(self, columns: dict[str, str], table: Json) -> None:
        """Refuse columns that the table lacks or has with another type; add those that may be added."""
        there, given = types(table["schema"]["fields"]), types(self.fields)
        mismatch = f"Provided Schema does not match Table {self.name}."
        for name, kind in [*given.items(), *columns.items()]:
            if name in there and there[name] != kind:
                raise JobError("invalid", f"{mismatch} Field {name} has changed type from {there[name]} to {kind}")
        new = [{"name": name, "type": kind} for name, kind in (given | columns).items() if name not in there]
        if not new:
            return
        if "ALLOW_FIELD_ADDITION" not in self.load.get("schemaUpdateOptions", []):
            raise JobError("invalid", f"{mismatch} Cannot add fields (field: {new[0]['name']})")
        described = {field["name"]: field for field in self.fields}
        fields = table["schema"]["fields"] + [described.get(field["name"], field) for field in new]
        self.emulator.add_columns(self.name, fields)
        self.emulator.do("PATCH", self.name.path, {"schema": {"fields": fields}})

    def _rows_to_replace(self, table: Json) -> str:
        """The condition of the rows that go; checks that those which come are of the same partition."""
        if not self.partition:
            return "TRUE" if self.truncates else "FALSE"
        partitioning = table.get("timePartitioning", {})
        if partitioning.get("type") != "MONTH" or not re.fullmatch(r"\d{6}", self.partition):
            raise JobError(
                "invalid", f"{self.partition} is no partition of {self.name}, which is partitioned by {partitioning}"
            )
        month = f"DATE '{self.partition[:4]}-{self.partition[4:]}-01'"
        inside = f"DATE_TRUNC({partitioning['field']}, MONTH) = {month}"
        strays = self.emulator.query(f"SELECT COUNT(*) FROM {self.scratch.sql} WHERE ({inside}) IS NOT TRUE")
        if strays != [["0"]]:
            expected = f"{self.name}${self.partition}"
            message = f"Some rows belong to different partitions rather than destination partition {expected}"
            raise JobError("invalid", message)
        return inside if self.truncates else "FALSE"

    def _move(self, columns: dict[str, str], replaced: str) -> None:
        """Both statements in one script, during which the emulator does nothing else.

        Not in a transaction, for which it would copy the whole table: types are compared and rows at hand, so that
        nothing can fail.
        """
        names = ", ".join(f"`{name}`" for name in columns)
        insert = f"INSERT INTO {self.name.sql} ({names}) SELECT {names} FROM {self.scratch.sql}"
        self.emulator.query(f"DELETE FROM {self.name.sql} WHERE {replaced}; {insert};")


def copy_partition(emulator: Emulator, project: str, copy: Json) -> None:
    """A copy job that replaces one month's partition by that of another table.

    Raises:
        JobError: the two are not partitions of the same month, or a table does not exist.
    """
    names, partitions = [], []
    (source_reference,) = copy.get("sourceTables") or [copy["sourceTable"]]
    for reference in (source_reference, copy["destinationTable"]):
        table, _, partition = reference["tableId"].partition("$")
        names.append(TableName(reference.get("projectId", project), reference["datasetId"], table))
        partitions.append(partition)
        if emulator.table(names[-1]) is None:
            raise JobError("notFound", f"Not found: Table {names[-1]}")
    source, destination = names
    layouts = [(emulator.table(name) or {}).get("timePartitioning", {}).get("type") for name in names]
    if partitions[0] != partitions[1] or not partitions[0] or layouts != ["MONTH", "MONTH"]:
        raise JobError("invalid", f"Partitions {partitions} of {source} and {destination} do not fit")
    if copy.get("writeDisposition") != "WRITE_TRUNCATE":
        raise JobError("duplicate", f"Already Exists: {destination}${partitions[1]}")
    month = f"month = DATE '{partitions[0][:4]}-{partitions[0][4:]}-01'"
    columns = ", ".join(f"`{name}`" for name in types((emulator.table(source) or {})["schema"]["fields"]))
    insert = f"INSERT INTO {destination.sql} ({columns}) SELECT {columns} FROM {source.sql} WHERE {month}"
    emulator.query(f"DELETE FROM {destination.sql} WHERE {month}; {insert};")
