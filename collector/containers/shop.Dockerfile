# The example shop under the agent. Built from the root of the repository:
#   docker build -f collector/containers/shop.Dockerfile -t otel-audit-shop .
ARG PYTHON_IMAGE=python:3.13.16-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY otel_audit otel_audit
RUN python -m venv /opt/shop \
 && /opt/shop/bin/pip install --no-cache-dir --constraint constraints.txt '.[django,agent]' gunicorn httpx \
 && install -d -o 10001 -g 10001 -m 0750 /state /state/spool

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/shop /opt/shop
COPY examples/shop /srv/shop
# The database and the spool. The spool holds records the Collector has not acknowledged: never on a disk that
# goes with the container.
COPY --from=build --chown=10001:10001 /state /var/lib/shop
ENV PATH=/opt/shop/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    DJANGO_SETTINGS_MODULE=shop.settings \
    SHOP_DATABASE=sqlite:///var/lib/shop/shop.sqlite3 \
    OTEL_SERVICE_NAME=shop \
    OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf \
    OTEL_METRICS_EXPORTER=none \
    OTEL_LOGS_EXPORTER=none \
    OTEL_AUDIT_CONFIG=/srv/shop/otel-audit.toml \
    OTEL_AUDIT_SPOOL_DIRECTORY=/var/lib/shop/spool
USER 10001:10001
WORKDIR /srv/shop
VOLUME ["/var/lib/shop"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/', timeout=4)"]
ENTRYPOINT ["opentelemetry-instrument"]
CMD ["gunicorn", "shop.wsgi", "--workers=2", "--bind=0.0.0.0:8000", "--no-control-socket", "--worker-tmp-dir=/tmp"]
