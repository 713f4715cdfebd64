"""The rehearsed services that a project is set up with: services, roles, accounts, datasets, image repositories."""

from recbandits.platforms.gcp.rehearsal.answers import done, drop, error, keep, look

PROJECT_NUMBER = "1234567890"


def _project(*_):
    return 200, {"name": f"projects/{PROJECT_NUMBER}", "projectId": "rehearsal"}


def _service(documents, request):
    return 200, documents.get(request.path, {"name": request.path, "state": "DISABLED"})


def _enable(documents, _, path):
    documents[path] = {"name": path, "state": "ENABLED"}
    return done("api.serviceusage.v1.EnableServiceResponse")


def _get_policy(documents, _, path):
    return 200, documents.setdefault(f"{path}:policy", {"version": 1, "etag": "MA=="})


def _set_policy(documents, request, path):
    stored, policy = documents[f"{path}:policy"], request.body["policy"]
    if policy.get("etag") != stored["etag"]:
        return error(409, "there were concurrent policy changes")
    documents[f"{path}:policy"] = policy | {"etag": "MA==" if stored["etag"] == "MQ==" else "MQ=="}
    return 200, documents[f"{path}:policy"]


def _make_account(documents, request, project):
    name = f"{request.path}/{request.body['accountId']}@{project}.iam.gserviceaccount.com"
    return keep(documents, name, request.body) or (200, request.body)


def _make_dataset(documents, request):
    name = f"{request.path}/{request.body['datasetReference']['datasetId']}"
    return keep(documents, name, request.body) or (200, request.body)


def _make_repository(documents, request):
    taken = keep(documents, f"{request.path}/{request.query['repositoryId']}", request.body)
    return taken or done("devtools.artifactregistry.v1.Repository")


def _drop_repository(documents, request):
    for path in [path for path in documents if path.startswith(f"{request.path}/packages/")]:
        del documents[path]
    status, document = drop(documents, request)
    return done("protobuf.Empty") if status == 200 else (status, document)


_REPOSITORIES = r"/v1/projects/[^/]+/locations/[^/]+/repositories"
_THINGS = r"/v1/projects/[^/]+/serviceAccounts/.+|/bigquery/v2/projects/[^/]+/datasets/[^/]+"
ROUTES = [
    ("GET", r"/v3/projects/[^/:]+", _project),
    ("GET", r"/v1/projects/[^/]+/services/[^/:]+", _service),
    ("POST", r"(/v1/projects/[^/]+/services/.+):enable", _enable),
    ("POST", r"(.+):getIamPolicy", _get_policy),
    ("GET", r"(.+):getIamPolicy", _get_policy),
    ("POST", r"(.+):setIamPolicy", _set_policy),
    ("POST", r"/v1/projects/([^/]+)/serviceAccounts", _make_account),
    ("POST", r"/bigquery/v2/projects/[^/]+/datasets", _make_dataset),
    ("GET", _THINGS, look),
    ("DELETE", _THINGS, drop),
    ("POST", _REPOSITORIES, _make_repository),
    ("GET", f"{_REPOSITORIES}/[^/]+", look),
    ("DELETE", f"{_REPOSITORIES}/[^/]+", _drop_repository),
]
