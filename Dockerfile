# The server as a container, for NVIDIA GPUs by default:
#
#     docker build --tag quietstar .
#     docker run --gpus all -p 8000:8000 quietstar --model ...
#
# and for a CPU:
#
#     docker build --target cpu --tag quietstar:cpu .
#     docker run --shm-size 1g -p 8000:8000 quietstar:cpu
#
# Without --model it serves the demonstration model. Mount a volume at /home/quietstar/.cache to keep downloaded
# models and compiled kernels. On a CPU vLLM's processes talk through shared memory, of which Docker gives 64 MB and
# they take 160 and more; for more than one GPU add --ipc=host. scripts/try-image builds and tries it all without Docker.

# The packages in requirements/ bring CUDA's libraries, so no CUDA base image is needed, only the driver.
FROM python:3.11.14-slim-bookworm AS base
# What scripts/prerequisites lists, less what this image's Python has: kernels are compiled when the server starts,
# vLLM for the CPU links libnuma and is faster with tcmalloc. Debian's own fixes are welcome: no pins.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libnuma1 libtcmalloc-minimal4 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 quietstar \
    && install --directory --owner=quietstar --group=quietstar \
        /home/quietstar/.cache /home/quietstar/.cache/huggingface
ENV HF_HOME=/home/quietstar/.cache/huggingface \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
# Only what the packages depend on: a change of the code does not install them again.
COPY requirements requirements
COPY pyproject.toml .
COPY scripts/install scripts/prerequisites scripts/
VOLUME /home/quietstar/.cache
EXPOSE 8000
STOPSIGNAL SIGTERM
# The first start downloads the model: half an hour of grace. Healthy as soon as it first answers.
HEALTHCHECK --start-period=30m --interval=15s --timeout=5s --retries=3 \
    CMD ["/app/.venv/bin/python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["/app/scripts/serve", "--host", "0.0.0.0"]
CMD ["--model", "models/demo", "--allow-return-thoughts"]

FROM base AS cpu
RUN scripts/install cpu pins
COPY . .
RUN scripts/install cpu project
USER 1000

FROM base AS cuda
RUN scripts/install cuda pins
COPY . .
RUN scripts/install cuda project
USER 1000
