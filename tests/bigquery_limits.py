"""A server that models BigQuery's documented limits for concurrent jobs.

It implements the part of the REST API that the client uses, stores the rows of the ledger but no trips, and lets each
job take some time. A second of the service takes `scale` seconds. Pages are under https://cloud.google.com/bigquery/;
DML is docs/data-manipulation-language.

limit                                                       | error                        | documented in
------------------------------------------------------------|------------------------------|--------------------
25 DML statements of a table in 10 s                        | rateLimitExceeded            | quotas
UPDATE, DELETE, MERGE of a table: 2 run, 20 wait            | "limit is 20"                | DML
two of them on the same partition                           | the later one is retried     | DML
                                                            |   three times, then fails    |
INSERT of a table: 1,500 a day at once, then 10 run,        | "limit is 100"               | DML
  100 wait                                                  |                              |
transactions that change the same table                     | the later one is cancelled   | docs/transactions
50 changes of a table's partitions in 10 s                  | rateLimitExceeded            | quotas
5 updates of a table's metadata in 10 s                     | rateLimitExceeded            | quotas
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import sqlglot
from sqlglot import exp

Json = dict[str, Any]

#: The mean duration of a job, in seconds; the model varies it by half.
_DURATIONS_S = {"load": 6.0, "insert": 2.0, "mutation": 3.0, "script": 4.0}
_INSERTS_AT_ONCE = 1_500


class JobError(Exception):
    """Why a job fails: reason and message as BigQuery returns them."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.proto = {"reason": reason, "message": message}


@dataclass
class Contention:
    """The recent changes of one table, and the statements that run on it."""

    statements: deque[float] = field(default_factory=deque)
    partitions: deque[float] = field(default_factory=deque)
    inserts: int = 0
    inserting: int = 0
    inserts_waiting: int = 0
    mutating: list[str] = field(default_factory=list)
    waiting: int = 0
    transactions: int = 0
    updates: deque[float] = field(default_factory=deque)


class Server(ThreadingHTTPServer):
    """Accepts many concurrent connections."""

    request_queue_size = 128
    daemon_threads = True


class LimitedBigQuery:
    """The server; `ended` counts its jobs by their result, `refusals` counts refused changes of tables."""

    def __init__(self, *, scale: float, seed: int = 1) -> None:
        self.scale, self.refusals = scale, 0
        #: The labels of each table.
        self.labels: dict[str, dict[str, str]] = {}
        self.bodies: dict[str, Json] = {}
        self.rows: dict[str, list[Json]] = defaultdict(list)
        self.ended: dict[str, int] = defaultdict(int)
        self._random = random.Random(seed)
        self._tables: dict[str, Contention] = defaultdict(Contention)
        self._changed = threading.Condition()
        self._jobs: dict[str, Json] = {}
        self._server = Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> LimitedBigQuery:
        self._thread.start()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # Tables.

    def change_table(self, name: str, body: Json, *, new: bool) -> tuple[int, Json]:
        with self._changed:
            if new and name in self.labels:
                return 409, _error("duplicate", f"Already Exists: Table {name}")
            try:
                self._count(self._tables[name].updates, 5, f"too many table update operations for this table {name}")
            except JobError as error:
                self.refusals += 1
                return 403, _error(**error.proto)
            self.labels.setdefault(name, {}).update(body.get("labels", {}))
            self.bodies.setdefault(name, {}).update(body)
        return 200, self.table(name) | body

    def table(self, name: str) -> Json:
        reference = {"projectId": "p", "datasetId": "d", "tableId": name}
        return {"kind": "bigquery#table", "id": name, "tableReference": reference, "labels": self.labels[name]}

    # Jobs.

    def insert(self, body: Json) -> tuple[int, Json]:
        reference, configuration = body["jobReference"], body["configuration"]
        job = {"kind": "bigquery#job", "id": reference["jobId"], "jobReference": reference}
        job |= {"configuration": configuration, "status": {"state": "RUNNING"}, "statistics": {}}
        if configuration.get("dryRun"):
            return 200, job | {"status": {"state": "DONE"}, "statistics": {"query": {}, "totalBytesProcessed": "0"}}
        with self._changed:
            if reference["jobId"] in self._jobs:
                return 409, _error("duplicate", "Already Exists")
            self._jobs[reference["jobId"]] = job
        threading.Thread(target=self._work, args=(job,), daemon=True).start()
        return 200, job | {"status": {"state": "RUNNING"}}

    def get(self, name: str, *, wait: bool) -> Json:
        with self._changed:
            job = self._jobs[name]
            if wait:
                self._changed.wait_for(lambda: job["status"]["state"] == "DONE", timeout=30)
            return dict(job)

    def _work(self, job: Json) -> None:
        configuration, statistics, status = job["configuration"], {}, {"state": "DONE"}
        try:
            if "load" in configuration:
                statistics = {"load": {"outputRows": str(self._load(configuration["load"]))}}
            else:
                self._query(configuration["query"]["query"])
                statistics = {"query": {"statementType": "INSERT", "numDmlAffectedRows": "1"}}
            self.ended["done"] += 1
        except JobError as error:
            status |= {"errorResult": error.proto, "errors": [error.proto]}
            self.ended[error.proto["message"].partition(":")[0]] += 1
        with self._changed:
            job["statistics"] = statistics
            job["status"] = status
            self._changed.notify_all()

    def _load(self, load: Json) -> int:
        table = load["destinationTable"]["tableId"].partition("$")[0]
        with self._changed:
            self._count(self._tables[table].partitions, 50, f"too many partition modifications for table {table}")
        self._take("load")
        return 30

    def _query(self, sql: str) -> None:
        if match := re.match(r"CREATE TABLE IF NOT EXISTS `(\w+)`", sql):
            self._take("insert")
            with self._changed:
                self.labels.setdefault(match[1], dict(re.findall(r'\("(\w+)", "(\w+)"\)', sql)))
            return
        statements = [statement for statement in sqlglot.parse(sql, read="bigquery") if statement]
        if len(statements) > 1:
            self._transaction(statements)
            return
        (statement,) = statements
        table = statement.find(exp.Table)
        assert table is not None
        contention = self._tables[table.name]
        with self._changed:
            self._count(contention.statements, 25, f"too many table dml operations for this table {table.name}")
        if isinstance(statement, exp.Insert):
            self._insert(contention, table.name)
        else:
            self._mutate(contention, table.name, _partition(sql))
        self._apply(statement, table.name)

    def _insert(self, contention: Contention, table: str) -> None:
        with self._changed:
            contention.inserts += 1
            if limited := contention.inserts > _INSERTS_AT_ONCE:
                if contention.inserts_waiting >= 100:
                    raise JobError(
                        "rateLimitExceeded", f"Too many DML statements outstanding against table {table}, limit is 100."
                    )
                contention.inserts_waiting += 1
                self._changed.wait_for(lambda: contention.inserting < 10)
                contention.inserts_waiting -= 1
                contention.inserting += 1
        self._take("insert")
        if limited:
            with self._changed:
                contention.inserting -= 1
                self._changed.notify_all()

    def _mutate(self, contention: Contention, table: str, partition: str) -> None:
        with self._changed:
            if len(contention.mutating) >= 2:
                if contention.waiting >= 20:
                    raise JobError(
                        "resourcesExceeded",
                        "Resources exceeded during query execution: Too many DML statements outstanding against "
                        f"table {table}, limit is 20.",
                    )
                contention.waiting += 1
                self._changed.wait_for(lambda: len(contention.mutating) < 2)
                contention.waiting -= 1
            contention.mutating.append(partition)
        try:
            for _ in range(4):
                with self._changed:
                    clash = contention.mutating.count(partition) > 1
                self._take("mutation")
                if not clash:
                    return
            raise JobError("invalidQuery", f"Could not serialize access to table {table} due to concurrent update")
        finally:
            with self._changed:
                contention.mutating.remove(partition)
                self._changed.notify_all()

    def _transaction(self, statements: list[Any]) -> None:
        changing = [each for each in statements if isinstance(each, (exp.Insert, exp.Delete, exp.Update, exp.Merge))]
        names = {table.name for each in changing if (table := each.find(exp.Table))}
        mutated = {
            table.name for each in changing if not isinstance(each, exp.Insert) and (table := each.find(exp.Table))
        }
        with self._changed:
            for name in sorted(names):
                self._count(self._tables[name].statements, 25, f"too many table dml operations for this table {name}")
            if any(self._tables[name].transactions for name in mutated):
                raise JobError("invalidQuery", "Transaction is aborted due to concurrent update against table")
            for name in mutated:
                self._tables[name].transactions += 1
        try:
            self._take("script")
        finally:
            with self._changed:
                for name in mutated:
                    self._tables[name].transactions -= 1

    def _count(self, moments: deque[float], limit: int, message: str) -> None:
        """Record an event; at most `limit` are allowed in ten seconds."""
        now = time.monotonic()
        while moments and now - moments[0] > 10 * self.scale:
            moments.popleft()
        if len(moments) >= limit:
            raise JobError("rateLimitExceeded", f"Exceeded rate limits: {message}")
        moments.append(now)

    def _take(self, job_type: str) -> None:
        time.sleep(_DURATIONS_S[job_type] * self.scale * self._random.uniform(0.5, 1.5))

    def _apply(self, statement: Any, table: str) -> None:
        """Store the rows of an INSERT into the ledger."""
        if not isinstance(statement, exp.Insert) or not table.endswith("loads"):
            return
        names = [column.name for column in statement.this.expressions]
        with self._changed:
            for row in statement.expression.expressions:
                self.rows[table].append(dict(zip(names, map(_value, row.expressions), strict=True)))

    def listed(self, table: str, names: list[str]) -> Json:
        """The rows of a table as `tabledata.list` returns them."""
        with self._changed:
            rows = list(self.rows[table])
        cells = [{"f": [{"v": row[name]} for name in names]} for row in rows]
        return {"kind": "bigquery#tableDataList", "totalRows": str(len(rows)), "rows": cells}


def _partition(sql: str) -> str:
    match = re.search(r"month = DATE '([\d-]+)'", sql)
    return match[1] if match else "all"


def _value(node: Any) -> str | None:
    """A value of the ledger as `tabledata.list` returns it; every month of a mart has 30 rows."""
    if isinstance(node, exp.Null):
        return None
    if isinstance(node, (exp.Subquery, exp.Paren)):
        return "30"
    if isinstance(node, exp.CurrentTimestamp):
        return str(int(datetime.now(timezone.utc).timestamp() * 1_000_000))
    if isinstance(node, exp.Literal):
        return str(node.this)
    return str(node.find(exp.Literal).this)


def _error(reason: str, message: str) -> Json:
    return {
        "error": {
            "code": 403 if reason == "rateLimitExceeded" else 400,
            "message": message,
            "errors": [{"reason": reason, "message": message}],
        }
    }


def _handler(service: LimitedBigQuery) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Otherwise the body waits until the client acknowledges the headers.
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            if parts.path.endswith("/tables"):
                tables = [service.table(name) for name in list(service.labels)]
                self._answer(200, {"kind": "bigquery#tableList", "tables": tables, "totalItems": len(tables)})
            elif match := re.search(r"/tables/(\w+)$", parts.path):
                # A table that a query made has no body; its columns do not matter here.
                self._answer(200, service.table(match[1]) | service.bodies.get(match[1], {}))
            elif match := re.search(r"/tables/(\w+)/data$", parts.path):
                self._answer(200, service.listed(match[1], query["selectedFields"][0].split(",")))
            elif match := re.search(r"/queries/([^/]+)$", parts.path):
                job = service.get(match[1], wait=True)
                if "errorResult" in job["status"]:
                    proto = job["status"]["errorResult"]
                    self._answer(400, _error(proto["reason"], proto["message"]))
                    return
                answer = {"jobComplete": True, "jobReference": job["jobReference"], "totalRows": "0"}
                self._answer(200, answer | {"schema": {"fields": []}, "numDmlAffectedRows": "1"})
            elif match := re.search(r"/jobs/([^/]+)$", parts.path):
                job = service.get(match[1], wait="load" in service.get(match[1], wait=False)["configuration"])
                self._answer(200, job)
            else:
                self._answer(404, _error("notFound", self.path))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path.partition("?")[0].endswith("/tables"):
                self._answer(*service.change_table(body["tableReference"]["tableId"], body, new=True))
            elif self.path.partition("?")[0].endswith("/datasets"):
                self._answer(200, body)
            else:
                self._answer(*service.insert(body))

        def do_PATCH(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = urlsplit(self.path).path.rpartition("/")[2]
            self._answer(*service.change_table(name, body, new=False))

        do_PUT = do_PATCH

        def _answer(self, status: int, answer: Json) -> None:
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
