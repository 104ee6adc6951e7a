"""What bqemulator 1.4 lacks of BigQuery, made up for in its gateway, so that the real client can be tested on it.

Pages of Google's documentation are below https://cloud.google.com/bigquery/docs/; `rest` is reference/rest/v2.

BigQuery                                                | the emulator           | documented in
--------------------------------------------------------|------------------------|-----------------------------------
load jobs: `t$YYYYMM` with WRITE_TRUNCATE replaces one  | refuses the name       | managing-partitioned-table-data
  partition; rows of another are an error               |                        |
load jobs: all or nothing                               | deletes, then may fail | rest/Job#JobConfigurationLoad
load jobs: columns of a Parquet file go by their names, | go by their places,    | loading-data-cloud-storage-parquet
  types must fit, new columns must be allowed           | are cast               |
load jobs: a schema that names a key of the path is an  | takes it               | hive-partitioned-loads-gcs
  error; without a schema times are TIMESTAMP           | DATETIME               | loading-data-cloud-storage-parquet
copy jobs: from partition to partition                  | refuses the names      | managing-partitioned-table-data
load jobs: WRITE_TRUNCATE of `t` takes its own schema   | keeps the table's      | rest/Job#JobConfigurationLoad
load jobs: outputRows counts what came                  | counts the table       | rest/Job#JobStatistics3
load jobs: a missing file or table fails the job        | refuses the request    | error-messages
load jobs: are running when their insertion is answered | are done               | running-jobs
jobs: an id that was used is answered with 409          | runs it again          | rest/jobs/insert
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

Works without: datasets (location, description, labels, default expiration, 409, 404); tables (schema, descriptions,
labels, partitioning, clustering, 409, 404); tabledata.list right after DML, of some columns, too; parameters of single
statements, arrays included; the default dataset, in scripts, too; INSERT, UPDATE, DELETE, MERGE and the counts of their
rows; BEGIN TRANSACTION … COMMIT TRANSACTION as one script, undone as a whole if a statement fails; CREATE OR REPLACE
VIEW; views over joins; casts to NUMERIC, DATE and DATETIME; GENERATE_DATE_ARRAY; INFORMATION_SCHEMA.PARTITIONS.

Stays lacking: external tables are empty, and tables.get tells their schema within externalDataConfiguration only;
`t$YYYYMM` outside of load jobs, `list_partitions`, `__TABLES__`; columns of ALTER TABLE are not told by tables.get;
`MERGE … INSERT ROW` fails; filters on partitions, expirations and quotas are not enforced; etags are not compared; the
location of a query is what the client says; queries are done when their insertion is answered, and run one after the
other, so that no transaction meets another. Only this gateway knows the jobs and views that came through it: one
dataset, one gateway.
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
#: What the emulator does not keep of a table.
_FORGOTTEN = ("externalDataConfiguration", "expirationTime", "requirePartitionFilter", "view")
#: What it forgets when CREATE TABLE IF NOT EXISTS finds a table.
_TOLD = ("description", "labels", "timePartitioning", "clustering", "schema")
#: A job in these places is found without its location.
_MULTI_REGIONS = ("US", "EU")


class BigQueryGateway(Gateway):
    """A gateway to bqemulator that keeps BigQuery's word where the emulator does not."""

    def __init__(self, emulator: BigQueryEmulator) -> None:
        super().__init__(emulator.url)
        self._emulator = Emulator(emulator.url, emulator.gcs_root)
        self._jobs: dict[tuple[str, str], Json] = {}
        self._forgotten: dict[TableName, Json] = {}
        self._ordered: dict[str, list[list[Json]]] = {"load": [], "query": []}
        self._inserting = threading.Lock()

    def fail_job(self, kind: str, *errors: tuple[str, str], times: int = 1) -> None:
        """Let the next jobs of this kind (load, query) do nothing and end with these errors: reasons and messages.

        For a job that is refused when it is to be inserted, see `fail`.
        """
        protos = [{"reason": reason, "message": message} for reason, message in errors]
        self._ordered[kind] += [protos] * times

    def stand_in(self, request: Request) -> Answer | None:
        path, method, body = request.path, request.method, request.body
        try:
            if (found := _JOBS.fullmatch(path)) and method == "POST":
                return self._insert_job(found["project"], body)
            if (found := _JOB.fullmatch(path)) and method == "GET":
                return self._get_job(found["project"], found["job"], request.query.get("location", ""))
            if (found := _QUERIES.fullmatch(path)) and method == "POST":
                return Answer.of_json(*self._run(found["project"], path, _with_parameters_bound(body), body))
            if (found := _TABLES.fullmatch(path)) and method == "POST" and "view" in body:
                return self._insert_view(TableName(**found.groupdict(), table=body["tableReference"]["tableId"]), body)
            if found and method == "GET":
                self._emulator.do("GET", path.removesuffix("/tables"))  # or there is no such dataset
            if (found := _TABLE.fullmatch(path)) and method in ("PATCH", "PUT"):
                return self._change_table(TableName(**found.groupdict()), body)
            if found and method == "DELETE":
                return self._delete_table(TableName(**found.groupdict()))
        except JobError as error:
            status = 404 if error.proto["reason"] == "notFound" else 400
            return Answer.of_error(status, error.proto["reason"], error.proto["message"])
        return None

    def correct(self, request: Request, answer: Answer) -> Answer:
        found = _TABLES.fullmatch(request.path) or _TABLE.fullmatch(request.path)
        if found is None or answer.status != 200:
            return answer
        resource = answer.json()
        if resource["kind"] == "bigquery#tableList":
            tables = [self._listed(_name(item["tableReference"]), item) for item in resource["tables"]]
            return Answer.of_json(200, resource | {"tables": tables})
        name = _name(resource["tableReference"])
        self._keep(name, request.body or {})
        return Answer.of_json(200, self._told(name, resource))

    # Jobs.

    def _insert_job(self, project: str, body: Json) -> Answer:
        reference = {"projectId": project, "jobId": uuid.uuid4().hex} | body.get("jobReference", {})
        key, configuration = (project, reference["jobId"]), body["configuration"]
        with self._inserting:
            if key in self._jobs:
                return Answer.of_error(409, "duplicate", f"Already Exists: Job {project}:{reference['jobId']}")
            self._jobs[key] = _job(reference, configuration, {"state": "RUNNING"}, {})
            ordered = self._ordered["load" if "load" in configuration else "query"]
            errors = ordered.pop(0) if ordered else None
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
        asked = {"jobReference": reference, "configuration": configuration | {"query": query}}
        status, told = self._run(project, f"{API}/projects/{project}/jobs", asked, query)
        if status != 200:  # such a job does not exist
            del self._jobs[key]
            return Answer.of_json(status, told)
        reference = told["jobReference"] | reference
        job = _job(reference, told["configuration"] | configuration, told["status"], told["statistics"])
        self._jobs[key] = job
        return Answer.of_json(200, job)

    def _run(self, project: str, path: str, asked: Json, query: Json) -> tuple[int, Json]:
        """Have the emulator run a query; tell it what it forgets of a table or view that the query makes."""
        made = creation(query, project)
        there = made and self._emulator.table(made.name)
        status, told = self._emulator.ask("POST", path, asked)
        if made and self._emulator.table(made.name):
            made_now = there is None or made.replaces
            properties = made.properties if made_now else {key: there[key] for key in _TOLD if key in there}
            self._keep(made.name, made.properties if made_now else {})
            self._emulator.do("PATCH", made.name.path, properties)
        return status, told

    def _get_job(self, project: str, identity: str, location: str) -> Answer | None:
        job = self._jobs.get((project, identity))
        if job is None:
            return None
        place = job["jobReference"].get("location", "US")
        if place.upper() not in _MULTI_REGIONS and place.lower() != location.lower():
            return Answer.of_error(404, "notFound", f"Not found: Job {project}:{identity}")
        return Answer.of_json(200, job)

    def _load(self, project: str, reference: Json, configuration: Json) -> Json:
        started = _now()
        status: Json = {"state": "DONE"}
        statistics: Json = {}
        try:
            reference["location"] = self._place(project, reference.get("location"), configuration["load"])
            rows = Load(self._emulator, project, configuration["load"]).run()
            files = str(len(configuration["load"]["sourceUris"]))
            statistics = {"load": {"outputRows": str(rows), "inputFiles": files, "badRecords": "0"}}
        except JobError as error:
            status |= {"errorResult": error.proto, "errors": [error.proto]}
        moments = {"creationTime": started, "startTime": started, "endTime": _now()}
        return _job(reference, configuration, status, moments | statistics)

    def _place(self, project: str, asked: str | None, load: Json) -> str:
        """Where the load runs, which is where its dataset lies."""
        destination = {"projectId": project} | load["destinationTable"]
        project, dataset = destination["projectId"], destination["datasetId"]
        status, found = self._emulator.ask("GET", f"{API}/projects/{project}/datasets/{dataset}")
        place: str = found.get("location", "US")
        if status != 200 or (asked or place).lower() != place.lower():
            raise JobError("notFound", f"Not found: Dataset {project}:{dataset} was not found in location {asked}")
        return place

    # Tables.

    def _keep(self, name: TableName, properties: Json) -> None:
        kept = {key: properties[key] for key in _FORGOTTEN if key in properties}
        self._forgotten[name] = self._forgotten.get(name, {}) | kept

    def _told(self, name: TableName, table: Json) -> Json:
        """The table as the client is to see it."""
        table = table | self._forgotten.get(name, {})
        if "externalDataConfiguration" in table:
            return table | {"type": "EXTERNAL"}
        if table["type"] == "VIEW":
            return table
        return table | {"numRows": self._emulator.query(f"SELECT COUNT(*) FROM {name.sql}")[0][0]}

    def _listed(self, name: TableName, item: Json) -> Json:
        """The table as the client is to see it in a list."""
        table = self._emulator.table(name) or {}
        kept = {key: table[key] for key in ("labels", "timePartitioning", "clustering") if key in table}
        external = "externalDataConfiguration" in self._forgotten.get(name, {})
        return item | kept | ({"type": "EXTERNAL"} if external else {})

    def _insert_view(self, name: TableName, body: Json) -> Answer | None:
        if self._emulator.table(name):
            return None  # the emulator says 409
        self._emulator.query(f"CREATE VIEW {name.sql} AS {body['view']['query']}")
        self._keep(name, body)
        kept = {key: body[key] for key in ("description", "labels") if key in body}
        return Answer.of_json(200, self._told(name, self._emulator.do("PATCH", name.path, kept)))

    def _change_table(self, name: TableName, body: Json) -> Answer | None:
        table = self._emulator.table(name)
        if table and "view" in body:
            self._emulator.query(f"CREATE OR REPLACE VIEW {name.sql} AS {body['view']['query']}")
        elif table and "schema" in body and table["type"] == "TABLE":
            self._emulator.add_columns(name, body["schema"]["fields"])
        return None  # the emulator changes its catalog, or says 404

    def _delete_table(self, name: TableName) -> Answer | None:
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
    kind = next(key for key in ("load", "query", "extract", "copy") if key in configuration)
    return {
        "kind": "bigquery#job",
        "id": f"{reference['projectId']}:{reference.get('location', 'US')}.{reference['jobId']}",
        "jobReference": reference,
        "configuration": configuration | {"jobType": kind.upper()},
        "status": status,
        "statistics": statistics,
    }


def _now() -> str:
    return str(int(time.time() * 1000))


def _with_parameters_bound(query: Json) -> Json:
    """A script with its parameters written out; anything else as it is."""
    if ";" not in query.get("query", "").strip().rstrip(";") or not query.get("queryParameters"):
        return query
    values = {
        each["name"]: _literal(each["parameterType"], each["parameterValue"]) for each in query["queryParameters"]
    }
    text = _PARAMETER.sub(lambda found: values[found["name"]] if found["name"] else found[0], query["query"])
    return {key: query[key] for key in query if key not in ("queryParameters", "parameterMode")} | {"query": text}


def _literal(kind: Json, value: Json) -> str:
    if kind["type"] == "ARRAY":
        return f"[{', '.join(_literal(kind['arrayType'], each) for each in value.get('arrayValues', []))}]"
    text: Any = value.get("value")
    if text is None:
        return f"CAST(NULL AS {kind['type']})"
    if kind["type"] in ("INT64", "FLOAT64", "BOOL"):
        return str(text)
    quoted = "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return quoted if kind["type"] == "STRING" else f"CAST({quoted} AS {kind['type']})"
