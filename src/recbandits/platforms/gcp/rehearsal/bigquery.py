"""BigQuery, rehearsed: tables and views in DuckDB, filled by loading Parquet and asked in BigQuery's SQL."""

import atexit
import io
import json
import re
from datetime import UTC, datetime, timedelta

from recbandits.platforms.gcp.rehearsal.answers import drop, error, keep, look
from recbandits.platforms.gcp.rehearsal.vertex import patch
from recbandits.platforms.local.warehouse import translated

_TYPES = {"STRING": "VARCHAR", "TIMESTAMP": "TIMESTAMPTZ", "FLOAT": "DOUBLE"}
_READERS = {"TIMESTAMP": datetime.fromisoformat, "FLOAT64": float, "INT64": int, "STRING": str}
_NAMES = {"string": "STRING", "int": "INTEGER", "double": "FLOAT", "timestamp": "TIMESTAMP"}


def _make_table(documents, request, place, dataset):
    if place not in documents:
        return error(404, f"dataset {dataset} was not found")
    name = request.body["tableReference"]["tableId"]
    document = request.body | {"id": name}
    if taken := keep(documents, f"{request.path}/{name}", document):
        return taken
    if "view" in document:
        query = re.sub(rf"[\w-]+\.{dataset}\.", f"{dataset}.", document["view"]["query"])
        _execute(documents, f"CREATE VIEW {dataset}.{name} AS {translated(query)[0]}")
    else:
        columns = ", ".join(map(_column, document["schema"]["fields"]))
        _execute(documents, f"CREATE TABLE {dataset}.{name} ({columns})", f"CREATE SCHEMA IF NOT EXISTS {dataset}")
    return 200, document


def _drop_table(documents, request, dataset, name):
    kind = "VIEW" if "view" in documents.get(request.path, {}) else "TABLE"
    status, document = drop(documents, request)
    if status == 200:
        _execute(documents, f"DROP {kind} {dataset}.{name}")
    return status, document


def _begin_load(documents, request, project):
    if request.query["uploadType"] == "multipart":
        return _load(documents, request.body, request.content)
    name = f"load {len(documents)}"
    documents[name] = request.body
    return 200, {}, {"Location": f"{request.path}?uploadType=resumable&upload_id={name.replace(' ', '%20')}"}


def _finish_load(documents, request, project):
    return _load(documents, documents.pop(request.query["upload_id"]), request.content)


def _load(documents, job, content):
    import pyarrow.parquet as pq

    place = job["configuration"]["load"]["destinationTable"]
    batch = pq.read_table(io.BytesIO(content))
    cursor = _database(documents).cursor()
    cursor.register("batch", batch)
    cursor.execute(f"INSERT INTO {place['datasetId']}.{place['tableId']} SELECT * FROM batch")
    job |= {"status": {"state": "DONE"}, "statistics": {"load": {"outputRows": str(len(batch))}}}
    reference = job["jobReference"]
    documents[f"/bigquery/v2/projects/{reference['projectId']}/jobs/{reference['jobId']}"] = job
    return 200, job


def _query(documents, request, project):
    import duckdb

    body = request.body
    values = {
        each["name"]: _READERS[each["parameterType"]["type"]](each["parameterValue"]["value"])
        for each in body.get("queryParameters", [])
    }
    reference = {"projectId": project, "jobId": f"query{len(documents)}", "location": "us-central1"}
    answer = {"jobComplete": True, "jobReference": reference}
    try:
        cursor = _database(documents).cursor()
        cursor.execute(f"USE {body['defaultDataset']['datasetId']}")
        for statement in body["query"].split(";\n"):
            answer |= _run(cursor, statement, values)
    except duckdb.Error as problem:
        return error(400, str(problem).splitlines()[0])
    return 200, answer


def _run(cursor, statement, values):
    text, names = translated(statement)
    given = {name: values[name] for name in names}
    if statement.split()[0] in ("BEGIN", "COMMIT", "DELETE", "MERGE"):
        cursor.execute(text, given)
        return {"totalRows": "0"}
    table = cursor.sql(text, params=given).to_arrow_table()
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return {
        "schema": {"fields": [_field(field) for field in table.schema]},
        "totalRows": str(len(table)),
        "rows": [{"f": [{"v": _value(value)} for value in row]} for row in rows],
    }


def _field(field):
    import pyarrow as pa

    many = pa.types.is_list(field.type)
    kind = re.match("[a-z]+", str(field.type.value_type if many else field.type))[0]
    return {"name": field.name, "type": _NAMES[kind], "mode": "REPEATED" if many else "NULLABLE"}


def _value(value):
    if isinstance(value, datetime):
        return str((value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))
    if isinstance(value, list):
        return [{"v": _value(each)} for each in value]
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _column(field):
    many, needed = ("[]" if field["mode"] == "REPEATED" else ""), ("" if field["mode"] == "NULLABLE" else " NOT NULL")
    return f"{field['name']} {_TYPES[field['type']]}{many}{needed}"


def _execute(documents, *statements):
    """Run statements, the last one first."""
    for statement in reversed(statements):
        _database(documents).execute(statement)


def _database(documents):
    if "bigquery" not in documents:
        import duckdb

        documents["bigquery"] = duckdb.connect()
        documents["bigquery"].execute("SET GLOBAL TimeZone = 'UTC'")
        # A thread that waits for a client would keep it beyond the end.
        atexit.register(documents.pop, "bigquery", None)
    return documents["bigquery"]


_PROJECT = r"/bigquery/v2/projects/([^/]+)"
_TABLES = r"(/bigquery/v2/projects/[^/]+/datasets/([^/]+))/tables"
_TABLE = r"/bigquery/v2/projects/[^/]+/datasets/([^/]+)/tables/([^/]+)"
ROUTES = [
    ("POST", _TABLES, _make_table),
    ("GET", _TABLE, lambda documents, request, *_: look(documents, request)),
    ("PATCH", _TABLE, lambda documents, request, *_: patch(documents, request)),
    ("DELETE", _TABLE, _drop_table),
    ("POST", f"/upload{_PROJECT}/jobs", _begin_load),
    ("PUT", f"/upload{_PROJECT}/jobs", _finish_load),
    ("GET", f"{_PROJECT}/jobs/[^/]+", lambda documents, request, *_: look(documents, request)),
    ("POST", f"{_PROJECT}/queries", _query),
]
