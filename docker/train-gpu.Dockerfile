# The training task for machines with an NVIDIA GPU: docker/train.Dockerfile and CUDA's libraries. From the root:
#   docker build -f docker/train-gpu.Dockerfile -t recbandits/train-gpu:v1 .
#   docker run --gpus all recbandits/train-gpu:v1 simulate --help
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm AS environment
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /opt/recbandits
COPY requirements.txt ./
RUN pip install --compile --no-deps --require-hashes -r requirements.txt
RUN useradd --create-home --home-dir /app --uid 1000 recbandits

FROM environment AS wheel
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist .

FROM environment
COPY requirements-gpu.txt ./
RUN pip install --compile --no-deps --require-hashes -r requirements-gpu.txt
COPY --from=wheel /opt/recbandits/dist dist
RUN pip install --compile --no-deps dist/*.whl
USER 1000
WORKDIR /app
ENV PYTHONUNBUFFERED=1
# A job has no port to ask. What ends long ones is a full disk, so that is looked at.
HEALTHCHECK --interval=60s --timeout=10s \
  CMD ["python", "-c", "import shutil, sys; sys.exit(shutil.disk_usage('.').free < 2**30)"]
ENTRYPOINT ["python", "-m", "recbandits.training.task"]
CMD ["--help"]
