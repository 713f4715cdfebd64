# The prediction server, for a laptop and for Vertex AI. Build it from the root of the repository:
#   docker build -f docker/serve.Dockerfile -t recbandits/serve:v1 .
#   docker run -p 8080:8080 -v /path/to/policy:/policy:ro -e AIP_STORAGE_URI=/policy recbandits/serve:v1
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm AS base
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
WORKDIR /opt/recbandits
RUN useradd --create-home --home-dir /app --uid 1000 recbandits

FROM base AS wheel
COPY requirements/build.txt requirements/
RUN pip install --no-deps --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist .

FROM base
COPY requirements/serve.txt requirements/
RUN pip install --compile --no-deps --require-hashes -r requirements/serve.txt
COPY --from=wheel /opt/recbandits/dist dist
RUN pip install --compile --no-deps dist/*.whl
USER 1000
WORKDIR /app
# Vertex AI sets its own AIP_* variables, these are for everywhere else.
ENV AIP_HTTP_PORT=8080 \
    AIP_HEALTH_ROUTE=/health \
    AIP_PREDICT_ROUTE=/predict
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['AIP_HTTP_PORT']), timeout=4); c.request('GET', os.environ['AIP_HEALTH_ROUTE']); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "recbandits.serving.server", "--host=0.0.0.0"]
