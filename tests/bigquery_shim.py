"""The gateway that adds to bqemulator 1.4 what it lacks of BigQuery, so that tests can use the real client.

Pages of Google's documentation are under https://cloud.google.com/bigquery/docs/; `rest` is reference/rest/v2.

BigQuery                                                | the emulator           | documented in
--------------------------------------------------------|------------------------|-----------------------------------
load jobs: `t$YYYYMM` with WRITE_TRUNCATE replaces one  | refuses the name       | managing-partitioned-table-data
  partition; rows of another are an error               |                        |
load jobs: all or nothing                               | deletes, then may fail | rest/Job#JobConfigurationLoad
load jobs: columns of a Parquet file match by name,     | match by position,     | loading-data-cloud-storage-parquet
  types must fit, new columns must be allowed           | are cast               |
load jobs: a schema that names a key of the path is an  | accepts it             | hive-partitioned-loads-gcs
  error; without a schema times are TIMESTAMP           | DATETIME               | loading-data-cloud-storage-parquet
copy jobs: from partition to partition                  | refuses the names      | managing-partitioned-table-data
load jobs: WRITE_TRUNCATE of `t` takes its own schema   | keeps the table's      | rest/Job#JobConfigurationLoad
load jobs: outputRows counts the loaded rows            | counts the table       | rest/Job#JobStatistics3
load jobs: a missing file or table fails the job        | refuses the request    | error-messages
load jobs: are RUNNING in the answer to jobs.insert     | are DONE               | running-jobs
jobs: a job id that exists is answered with 409         | runs it again          | rest/jobs/insert
jobs: outside US and EU, found with their location only | all are in US          | rest/jobs/get
jobs: labels and configuration are kept                 | labels are lost        | rest/Job#JobConfiguration
scripts: named parameters                               | are not bound          | parameterized-queries
tables.insert, patch: `view`                            | lost; no schema        | rest/tables#ViewDefinition
CREATE TABLE: labels, partitioning, clustering          | lost                   | data-definition-language
tables.insert: `externalDataConfiguration`, EXTERNAL    | lost; a plain table    | rest/tables#Table
tables.insert, patch: `expirationTime`                  | lost                   | rest/tables#Table
tables.patch: adds columns, refuses other changes       | in the catalog only    | managing-table-schemas
tables.get: `numRows` after DML                         | of the last load       | rest/tables#Table
tables.list: labels, partitioning, clustering; 404      | lost; an empty list    | rest/tables/list
tables.delete: views                                    | fails if made by DDL   | rest/tables/delete

Works without the gateway: datasets (location, description, labels, default expiration, 409, 404); tables (schema,
descriptions, labels, partitioning, clustering, 409, 404); tabledata.list right after DML, also of some columns;
parameters of single statements, also arrays; the default dataset, also in scripts; INSERT, UPDATE, DELETE, MERGE with
their row counts; BEGIN TRANSACTION … COMMIT TRANSACTION as one script, undone as a whole if a statement fails;
CREATE OR REPLACE VIEW; views over joins; casts to NUMERIC, DATE and DATETIME; GENERATE_DATE_ARRAY;
INFORMATION_SCHEMA.PARTITIONS.

Still missing: external tables are empty, and tables.get has their schema in externalDataConfiguration only; `t$YYYYMM`
outside of load jobs, `list_partitions`, `__TABLES__`; tables.get does not have the columns of ALTER TABLE; `MERGE …
INSERT ROW` fails; partition filters, expirations and quotas are not enforced; etags are not compared; the location of a
query is the one that the client sends; queries are DONE in the answer to jobs.insert, and run one after the other, so
there are no concurrent transactions. The gateway knows only the jobs and views that it has forwarded, so use one
gateway per dataset.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from typing import Any

from bigquery_ddl import creation
from bigquery_load import API, Emulator, JobError, Json, Load, TableName, copy_partition
from emulators import BigQueryEmulator
from gateway import Answer, Gateway, Request

_JOBS = re.compile(API + r"/projects/(?P<project>[^/]+)/jobs")
_JOB = re.compile(_JOBS.pattern + r"/(?P<job>[^/]+)")
_QUERIES = re.compile(API + r"/projects/(?P<project>[^/]+)/queries")
_TABLES = re.compile(API + r"/projects/(?P<project>[^/]+)/datasets/(?P<dataset>[^/]+)/tables")
_TABLE = re.compile(_TABLES.pattern + r"/(?P<table>[^/]+)")
_PARAMETER = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`[^`]*`|@(?P<name>\w+)""")
#: Properties of a table that the emulator does not store.
_FORGOTTEN = ("externalDataConfiguration", "expirationTime", "requirePartitionFilter", "view")
#: Properties that it loses when the table of CREATE TABLE IF NOT EXISTS exists.
_LOST = ("description", "labels", "timePartitioning", "clustering", "schema")
#: A job in these locations is found without its location.
_MULTI_REGIONS = ("US", "EU")


class BigQueryGateway(Gateway):
    """A gateway to bqemulator that behaves like BigQuery where the emulator does not."""

    def __init__(self, emulator: BigQueryEmulator) -> None:
        super().__init__(emulator.url)
        self._emulator = Emulator(emulator.url, emulator.gcs_root)
        self._jobs: dict[tuple[str, str], Json] = {}
        self._forgotten: dict[TableName, Json] = {}
        self._failures: dict[str, list[list[Json]]] = {"load": [], "query": []}
        self._inserting = threading.Lock()
        self._changing_views = threading.Lock()  # each change is several requests to the emulator

    def fail_job(self, job_type: str, *errors: tuple[str, str], times: int = 1) -> None:
        """Let the next jobs of this type (load, query) do nothing and fail with these errors: (reason, message).

        For an error in the answer to jobs.insert, see `fail`.
        """
        protos = [{"reason": reason, "message": message} for reason, message in errors]
        self._failures[job_type] += [protos] * times

    def stand_in(self, request: Request) -> Answer | None:
        path, method, body = request.path, request.method, request.body
        try:
            if (match := _JOBS.fullmatch(path)) and method == "POST":
                return self._insert_job(match["project"], body)
            if (match := _JOB.fullmatch(path)) and method == "GET":
                return self._get_job(match["project"], match["job"], request.query.get("location", ""))
            if (match := _QUERIES.fullmatch(path)) and method == "POST":
                return Answer.of_json(*self._run(match["project"], path, _with_parameters_bound(body), body))
            if (match := _TABLES.fullmatch(path)) and method == "POST" and "view" in body:
                return self._insert_view(TableName(**match.groupdict(), table=body["tableReference"]["tableId"]), body)
            if match and method == "GET":
                self._emulator.do("GET", path.removesuffix("/tables"))  # raises if the dataset does not exist
            if (match := _TABLE.fullmatch(path)) and method in ("PATCH", "PUT"):
                return self._change_table(TableName(**match.groupdict()), body)
            if match and method == "DELETE":
                return self._delete_table(TableName(**match.groupdict()))
        except JobError as error:
            status = 404 if error.proto["reason"] == "notFound" else 400
            return Answer.of_error(status, error.proto["reason"], error.proto["message"])
        return None

    def correct(self, request: Request, answer: Answer) -> Answer:
        match = _TABLES.fullmatch(request.path) or _TABLE.fullmatch(request.path)
        if match is None or answer.status != 200:
            return answer
        resource = answer.json()
        if resource["kind"] == "bigquery#tableList":
            tables = [self._listed(_name(item["tableReference"]), item) for item in resource["tables"]]
            return Answer.of_json(200, resource | {"tables": tables})
        name = _name(resource["tableReference"])
        self._keep(name, request.body or {})
        return Answer.of_json(200, self._complete(name, resource))

    # Jobs.

    def _insert_job(self, project: str, body: Json) -> Answer:
        reference = {"projectId": project, "jobId": uuid.uuid4().hex} | body.get("jobReference", {})
        key, configuration = (project, reference["jobId"]), body["configuration"]
        with self._inserting:
            if key in self._jobs:
                return Answer.of_error(409, "duplicate", f"Already Exists: Job {project}:{reference['jobId']}")
            self._jobs[key] = _job(reference, configuration, {"state": "RUNNING"}, {})
            failures = self._failures["load" if "load" in configuration else "query"]
            errors = failures.pop(0) if failures else None
        if errors:
            status = {"state": "DONE", "errorResult": errors[0], "errors": errors}
            job = self._jobs[key] = _job(reference, configuration, status, {"creationTime": _now(), "endTime": _now()})
            return Answer.of_json(200, job)
        if "copy" in configuration:
            status = {"state": "DONE"}
            try:
                copy_partition(self._emulator, project, configuration["copy"])
            except JobError as error:
                status |= {"errorResult": error.proto, "errors": [error.proto]}
            job = self._jobs[key] = _job(reference, configuration, status, {"creationTime": _now(), "endTime": _now()})
            return Answer.of_json(200, job)
        if "load" in configuration:
            job = self._jobs[key] = self._load(project, reference, configuration)
            return Answer.of_json(200, job | {"status": {"state": "RUNNING"}, "statistics": {}})
        query = _with_parameters_bound(configuration["query"])
        body = {"jobReference": reference, "configuration": configuration | {"query": query}}
        status, answer = self._run(project, f"{API}/projects/{project}/jobs", body, query)
        if status != 200:  # the job was not created
            del self._jobs[key]
            return Answer.of_json(status, answer)
        reference = answer["jobReference"] | reference
        job = _job(reference, answer["configuration"] | configuration, answer["status"], answer["statistics"])
        self._jobs[key] = job
        return Answer.of_json(200, job)

    def _run(self, project: str, path: str, body: Json, query: Json) -> tuple[int, Json]:
        """Run a query; if it creates a table or view, store the properties that the emulator loses."""
        created = creation(query, project)
        existing = created and self._emulator.table(created.name)
        status, answer = self._emulator.ask("POST", path, body)
        if created and self._emulator.table(created.name):
            is_new = existing is None or created.replaces
            properties = created.properties if is_new else {key: existing[key] for key in _LOST if key in existing}
            self._keep(created.name, created.properties if is_new else {})
            self._emulator.do("PATCH", created.name.path, properties)
        return status, answer

    def _get_job(self, project: str, identity: str, location: str) -> Answer | None:
        job = self._jobs.get((project, identity))
        if job is None:
            return None
        ran_in = job["jobReference"].get("location", "US")
        if ran_in.upper() not in _MULTI_REGIONS and ran_in.lower() != location.lower():
            return Answer.of_error(404, "notFound", f"Not found: Job {project}:{identity}")
        return Answer.of_json(200, job)

    def _load(self, project: str, reference: Json, configuration: Json) -> Json:
        started = _now()
        status: Json = {"state": "DONE"}
        statistics: Json = {}
        try:
            reference["location"] = self._location(project, reference.get("location"), configuration["load"])
            rows = Load(self._emulator, project, configuration["load"]).run()
            files = str(len(configuration["load"]["sourceUris"]))
            statistics = {"load": {"outputRows": str(rows), "inputFiles": files, "badRecords": "0"}}
        except JobError as error:
            status |= {"errorResult": error.proto, "errors": [error.proto]}
        moments = {"creationTime": started, "startTime": started, "endTime": _now()}
        return _job(reference, configuration, status, moments | statistics)

    def _location(self, project: str, requested: str | None, load: Json) -> str:
        """The location of the load's dataset, in which the job runs."""
        destination = {"projectId": project} | load["destinationTable"]
        project, dataset = destination["projectId"], destination["datasetId"]
        status, resource = self._emulator.ask("GET", f"{API}/projects/{project}/datasets/{dataset}")
        location: str = resource.get("location", "US")
        if status != 200 or (requested or location).lower() != location.lower():
            raise JobError("notFound", f"Not found: Dataset {project}:{dataset} was not found in location {requested}")
        return location

    # Tables.

    def _keep(self, name: TableName, properties: Json) -> None:
        kept = {key: properties[key] for key in _FORGOTTEN if key in properties}
        self._forgotten[name] = self._forgotten.get(name, {}) | kept

    def _complete(self, name: TableName, table: Json) -> Json:
        """The table's resource with the properties that the emulator does not store."""
        table = table | self._forgotten.get(name, {})
        if "externalDataConfiguration" in table:
            return table | {"type": "EXTERNAL"}
        if table["type"] == "VIEW":
            return table
        return table | {"numRows": self._emulator.query(f"SELECT COUNT(*) FROM {name.sql}")[0][0]}

    def _listed(self, name: TableName, item: Json) -> Json:
        """The table's entry in a list, with the properties that the emulator leaves out."""
        table = self._emulator.table(name) or {}
        kept = {key: table[key] for key in ("labels", "timePartitioning", "clustering") if key in table}
        external = "externalDataConfiguration" in self._forgotten.get(name, {})
        return item | kept | ({"type": "EXTERNAL"} if external else {})

    def _insert_view(self, name: TableName, body: Json) -> Answer | None:
        with self._changing_views:
            if self._emulator.table(name):
                return None  # the emulator answers 409
            self._emulator.query(f"CREATE VIEW {name.sql} AS {body['view']['query']}")
            self._keep(name, body)
            kept = {key: body[key] for key in ("description", "labels") if key in body}
            return Answer.of_json(200, self._complete(name, self._emulator.do("PATCH", name.path, kept)))

    def _change_table(self, name: TableName, body: Json) -> Answer | None:
        table = self._emulator.table(name)
        if table and "view" in body:
            with self._changing_views:
                self._emulator.query(f"CREATE OR REPLACE VIEW {name.sql} AS {body['view']['query']}")
        elif table and "schema" in body and table["type"] == "TABLE":
            self._emulator.add_columns(name, body["schema"]["fields"])
        return None  # the emulator changes its catalog, or answers 404

    def _delete_table(self, name: TableName) -> Answer | None:
        with self._changing_views:
            table = self._emulator.table(name)
            self._forgotten.pop(name, None)
            if table is None or table["type"] != "VIEW":
                return None
            self._emulator.query(f"DROP VIEW {name.sql}")
            return Answer(204)


def _name(reference: Json) -> TableName:
    return TableName(reference["projectId"], reference["datasetId"], reference["tableId"])


def _job(reference: Json, configuration: Json, status: Json, statistics: Json) -> Json:
    """A job's resource: https://cloud.google.com/bigquery/docs/reference/rest/v2/Job."""
    job_type = next(key for key in ("load", "query", "extract", "copy") if key in configuration)
    return {
        "kind": "bigquery#job",
        "id": f"{reference['projectId']}:{reference.get('location', 'US')}.{reference['jobId']}",
        "jobReference": reference,
        "configuration": configuration | {"jobType": job_type.upper()},
        "status": status,
        "statistics": statistics,
    }


def _now() -> str:
    return str(int(time.time() * 1000))


def _with_parameters_bound(query: Json) -> Json:
    """A script with its parameters replaced by literals; any other query unchanged."""
    if ";" not in query.get("query", "").strip().rstrip(";") or not query.get("queryParameters"):
        return query
    values = {
        each["name"]: _literal(each["parameterType"], each["parameterValue"]) for each in query["queryParameters"]
    }
    text = _PARAMETER.sub(lambda match: values[match["name"]] if match["name"] else match[0], query["query"])
    return {key: query[key] for key in query if key not in ("queryParameters", "parameterMode")} | {"query": text}


def _literal(type_: Json, value: Json) -> str:
    if type_["type"] == "ARRAY":
        return f"[{', '.join(_literal(type_['arrayType'], each) for each in value.get('arrayValues', []))}]"
    text: Any = value.get("value")
    if text is None:
        return f"CAST(NULL AS {type_['type']})"
    if type_["type"] in ("INT64", "FLOAT64", "BOOL"):
        return str(text)
    quoted = "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return quoted if type_["type"] == "STRING" else f"CAST({quoted} AS {type_['type']})"
