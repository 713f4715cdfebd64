# JupyterLab on the notebooks, for a laptop, a dev container and Binder. Build it from the root of the repository:
#   docker build -f docker/lab.Dockerfile -t recbandits/lab:v1 .
#   docker run -p 8888:8888 recbandits/lab:v1
# Binder reads .binder/Dockerfile, which is this file.
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
COPY requirements.txt ./
RUN pip install --compile --no-deps --require-hashes -r requirements.txt
COPY --from=wheel /opt/recbandits/dist dist
RUN pip install --compile --no-deps dist/*.whl
USER 1000
WORKDIR /app
COPY --chown=1000:1000 . notebooks/
WORKDIR /app/notebooks
ENV JUPYTER_PORT=8888
EXPOSE 8888
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['JUPYTER_PORT']), timeout=4); c.request('GET', '/api'); sys.exit(c.getresponse().status != 200)"]
CMD ["python", "-m", "jupyterlab", "--ip=0.0.0.0", "--no-browser"]
