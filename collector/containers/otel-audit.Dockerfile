# The command `otel-audit`: by default `serve`, the embedded store. Built from the root of the repository:
#   docker build -f collector/containers/otel-audit.Dockerfile -t otel-audit .
# The engine has wheels for glibc only: no Alpine.
ARG PYTHON_IMAGE=python:3.13.16-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY otel_audit otel_audit
RUN python -m venv /opt/otel-audit \
 && /opt/otel-audit/bin/pip install --no-cache-dir --constraint constraints.txt '.[server]' \
 && install -d -o 10001 -g 10001 -m 0750 /state

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/otel-audit /opt/otel-audit
COPY --from=build --chown=10001:10001 /state /var/lib/otel-audit
ENV PATH=/opt/otel-audit/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    OTEL_AUDIT_SERVER_HOST=0.0.0.0 \
    OTEL_AUDIT_SERVER_DATA=/var/lib/otel-audit
USER 10001:10001
WORKDIR /var/lib/otel-audit
VOLUME ["/var/lib/otel-audit"]
EXPOSE 4317 4318 8123
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:4318/ready', timeout=4)"]
# OTEL_AUDIT_SERVER_TOKEN must be set: it refuses to listen on other addresses without.
ENTRYPOINT ["otel-audit"]
CMD ["serve"]
