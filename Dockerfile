# Builds from the same hashed lock as everything else; the image that runs holds no compiler, no pip and no root.
FROM python:3.12-slim AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN python -m venv --without-pip /opt/kingmaker \
    && python -m pip install --require-hashes --requirement requirements/build.txt \
    && python -m pip --python /opt/kingmaker/bin/python install --require-hashes --requirement requirements/runtime.txt
# The request path is compiled, which takes a C compiler, and the packages whose types it uses. COMPILED=0: pure Python.
ARG COMPILED=1
RUN if [ "$COMPILED" != 0 ]; then \
        apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/* \
        && python -m pip install --require-hashes --requirement requirements/runtime.txt; \
    fi
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY routing/ routing/
COPY policies/ policies/
COPY migrations/ migrations/
COPY app/ app/
RUN KINGMAKER_COMPILED=$COMPILED python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && python -m pip --python /opt/kingmaker/bin/python install --no-deps --no-index /wheels/*.whl

FROM python:3.12-slim
LABEL org.opencontainers.image.title="kingmaker" org.opencontainers.image.licenses="Apache-2.0"
RUN install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/kingmaker
COPY --from=build /opt/kingmaker /opt/kingmaker
ENV PATH=/opt/kingmaker/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    KINGMAKER_DATA_DIR=/var/lib/kingmaker
USER 10001:10001
WORKDIR /var/lib/kingmaker
VOLUME /var/lib/kingmaker
EXPOSE 8080 8081
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["kingmaker"]
CMD ["serve"]
