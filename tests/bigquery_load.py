"""BigQuery's load jobs on bqemulator 1.4; bigquery_shim.py lists how they differ from the emulator's own.

A file is loaded into a scratch table with its own columns, then copied by column names into its table in one step.
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
#: The standard names of types with two names.
_STANDARD = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}


class JobError(Exception):
    """Why a job fails, as BigQuery reports it: https://cloud.google.com/bigquery/docs/error-messages."""

    def __init__(self, reason: str, message: str, location: str | None = None) -> None:
        super().__init__(message)
        self.proto = {"reason": reason, "message": message} | ({"location": location} if location else {})

    @classmethod
    def of(cls, answer: Json) -> JobError:
        """The first error in an answer of the emulator."""
        errors = (
            answer.get("error", {}).get("errors")
            or answer.get("errors")
            or [answer.get("status", {}).get("errorResult", {})]
        )
        return cls(errors[0].get("reason", "internalError"), errors[0].get("message", str(answer)))


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
    """The emulator itself, without its gateway."""

    url: str
    gcs_root: Path

    def ask(self, method: str, path: str, body: Json | None = None) -> tuple[int, Json]:
        """The status and the body of its answer."""
        response = requests.request(method, self.url + path, json=body, timeout=_TIMEOUT_S)
        return response.status_code, response.json() if response.content else {}

    def do(self, method: str, path: str, body: Json | None = None) -> Json:
        """The body of its answer.

        Raises:
            JobError: the answer is an error.
        """
        status, answer = self.ask(method, path, body)
        if status >= 300 or answer.get("errors") or answer.get("status", {}).get("errorResult"):
            raise JobError.of(answer)
        return answer

    def query(self, sql: str) -> list[list[str]]:
        """The rows of the result, as text.

        Raises:
            JobError: the answer is an error.
        """
        result = self.do("POST", f"{API}/projects/shim/queries", {"query": sql, "useLegacySql": False})
        return [[cell["v"] for cell in row["f"]] for row in result.get("rows", [])]

    def table(self, name: TableName) -> Json | None:
        """The table's resource; None if the table does not exist."""
        status, table = self.ask("GET", name.path)
        return table if status == 200 else None

    def add_columns(self, name: TableName, fields: list[Json]) -> None:
        """Add the missing columns to the data; the catalog does not change.

        Raises:
            JobError: an existing column is missing or has another type, or a new one is required.
        """
        existing = types((self.table(name) or {})["schema"]["fields"])
        wanted = types(fields)
        mismatch = f"Provided Schema does not match Table {name}."
        for column, type_ in existing.items():
            if column not in wanted:
                raise JobError("invalid", f"{mismatch} Field {column} is missing in new schema")
            if wanted[column] != type_:
                raise JobError(
                    "invalid", f"{mismatch} Field {column} has changed type from {type_} to {wanted[column]}"
                )
        added = [field for field in fields if field["name"] not in existing]
        for field in added:
            if field.get("mode") == "REQUIRED":
                raise JobError(
                    "invalid", f"{mismatch} Cannot add required fields to an existing schema. (field: {field['name']})"
                )
        for field in added:
            self.query(f"ALTER TABLE {name.sql} ADD COLUMN `{field['name']}` {wanted[field['name']]}")


def bigquery_type(type_: pa.DataType) -> str:
    """The BigQuery type of a Parquet column: https://cloud.google.com/bigquery/docs/loading-data-cloud-storage-parquet.

    A column becomes a DATETIME only if the load job has a schema that says so.

    Raises:
        JobError: the type is not supported here.
    """
    if pa.types.is_timestamp(type_):
        return "TIMESTAMP"
    tests = {
        "INT64": pa.types.is_integer,
        "FLOAT64": pa.types.is_floating,
        "BOOL": pa.types.is_boolean,
        "STRING": lambda type_: pa.types.is_string(type_) or pa.types.is_large_string(type_),
        "DATE": pa.types.is_date32,
        "NUMERIC": pa.types.is_decimal,
    }
    name = next((name for name, fits in tests.items() if fits(type_)), None)
    if name is None:
        raise JobError("invalid", f"Error while reading data, error message: unsupported type {type_}")
    return name


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
        """Run the job; returns the number of loaded rows.

        Raises:
            JobError: the job fails; the table is unchanged.
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
        """Names and types of the first file's columns, with the schema's types, then of the keys in the path."""
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
            # https://cloud.google.com/bigquery/docs/hive-partitioned-loads-gcs: keys are not columns of the files.
            raise JobError("invalid", f"The schema names the partition keys {named} of {address}", address)
        inferred = {field.name: bigquery_type(field.type) for field in schema}
        columns = {
            name: "DATETIME" if (type_, given.get(name)) == ("TIMESTAMP", "DATETIME") else type_
            for name, type_ in inferred.items()
        }
        return columns | keys

    def _keys(self) -> dict[str, str]:
        """The keys in the path of every file, with their types."""
        prefix = self.load.get("hivePartitioningOptions", {}).get("sourceUriPrefix", "")
        keys = {match["name"]: match["type"] for match in _HIVE_KEY.finditer(prefix)}
        layout = re.escape(prefix.partition("{")[0]) + "".join(f"{name}=[^/]+/" for name in keys)
        for address in self.load["sourceUris"]:
            if not re.match(layout, address):
                raise JobError("invalid", f"Partition keys {sorted(keys)} of {prefix} are not in {address}", address)
        return keys

    def _fill_scratch(self, columns: dict[str, str]) -> None:
        self.emulator.ask(
            "POST", f"{API}/projects/shim/datasets", {"datasetReference": {"datasetId": self.scratch.dataset}}
        )
        schema = {"fields": [{"name": name, "type": type_} for name, type_ in columns.items()]}
        load = {key: self.load[key] for key in ("sourceUris", "sourceFormat")}
        load |= {"destinationTable": self.scratch.reference, "schema": schema}
        self.emulator.do("POST", f"{API}/projects/shim/jobs", {"configuration": {"load": load}})

    def _destination(self, columns: dict[str, str]) -> Json:
        """The table, created if it does not exist; with the schema of the load if the whole table is replaced."""
        table = self.emulator.table(self.name)
        if table is None and self.load.get("createDisposition") == "CREATE_NEVER":
            raise JobError("notFound", f"Not found: Table {self.name}")
        if table and not (self.truncates and not self.partition):
            return table
        named = types(self.fields) or columns
        keys = [{"name": name, "type": type_} for name, type_ in self._keys().items() if name not in named]
        fields = [*(self.fields or [{"name": name, "type": type_} for name, type_ in columns.items()]), *keys]
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
        """Validate that the table has the columns with these types; add new columns if the job allows it."""
        existing, given = types(table["schema"]["fields"]), types(self.fields)
        mismatch = f"Provided Schema does not match Table {self.name}."
        for name, type_ in [*given.items(), *columns.items()]:
            if name in existing and existing[name] != type_:
                raise JobError("invalid", f"{mismatch} Field {name} has changed type from {existing[name]} to {type_}")
        new = [{"name": name, "type": type_} for name, type_ in (given | columns).items() if name not in existing]
        if not new:
            return
        if "ALLOW_FIELD_ADDITION" not in self.load.get("schemaUpdateOptions", []):
            raise JobError("invalid", f"{mismatch} Cannot add fields (field: {new[0]['name']})")
        described = {field["name"]: field for field in self.fields}
        fields = table["schema"]["fields"] + [described.get(field["name"], field) for field in new]
        self.emulator.add_columns(self.name, fields)
        self.emulator.do("PATCH", self.name.path, {"schema": {"fields": fields}})

    def _rows_to_replace(self, table: Json) -> str:
        """The condition for the rows to delete; validates that all new rows belong to the same partition."""
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
        """Run both statements as one script, during which the emulator runs nothing else.

        Not a transaction, because the emulator would copy the whole table. Types were compared and the rows are in the
        scratch table, so the statements do not fail.
        """
        names = ", ".join(f"`{name}`" for name in columns)
        insert = f"INSERT INTO {self.name.sql} ({names}) SELECT {names} FROM {self.scratch.sql}"
        self.emulator.query(f"DELETE FROM {self.name.sql} WHERE {replaced}; {insert};")


def copy_partition(emulator: Emulator, project: str, copy: Json) -> None:
    """A copy job that replaces one month's partition by the partition of another table.

    Raises:
        JobError: the two are not partitions of the same month, or a table does not exist.
    """
    names, partitions = [], []
    (first,) = copy["sourceTables"]
    for reference in (first, copy["destinationTable"]):
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
