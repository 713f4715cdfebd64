# The training task, for a laptop and for Vertex AI. Build it from the root of the repository:
#   docker build -f docker/train.Dockerfile -t recbandits/train:v1 .
#   docker run recbandits/train:v1 simulate --help
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
# The same values as in recbandits/__init__.py, for programs that import TensorFlow without recbandits.
ENV TF_USE_LEGACY_KERAS=1 TF_ENABLE_ONEDNN_OPTS=0 TF_CPP_MIN_LOG_LEVEL=1 GRPC_VERBOSITY=ERROR
COPY requirements/train.txt requirements/
RUN pip install --compile --no-deps --require-hashes -r requirements/train.txt
COPY --from=wheel /opt/recbandits/dist dist
RUN pip install --compile --no-deps dist/*.whl
USER 1000
WORKDIR /app
# A job has no port to ask. What ends long ones is a full disk, so that is looked at.
HEALTHCHECK --interval=60s --timeout=10s \
  CMD ["python", "-c", "import shutil, sys; sys.exit(shutil.disk_usage('.').free < 2**30)"]
ENTRYPOINT ["python", "-m", "recbandits.training.task"]
CMD ["--help"]
