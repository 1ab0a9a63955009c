# The Collector distribution `otelcol-audit`, with its configuration. Built from the root of the repository:
#   docker build -f collector/containers/collector.Dockerfile -t otelcol-audit .
ARG GO_IMAGE=golang:1.26.8-trixie

FROM ${GO_IMAGE} AS build
# The module proxy, where it is not the public one.
ARG GOPROXY
WORKDIR /src
COPY scripts/with-go scripts/collector scripts/
COPY collector/manifest.yaml collector/
COPY collector/patches collector/patches
COPY collector/router collector/router
# In one step: the module cache is a gigabyte, and nobody needs it afterwards.
RUN cp "$(scripts/collector)" /otelcol-audit && rm -rf .cache /go/pkg /root/.cache
RUN mkdir -p /state/queue /state/mirror && chown -R 10001:10001 /state && chmod -R 0750 /state

# Nothing but the binary: no shell to be broken into, and nothing to keep up to date.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /otelcol-audit /usr/bin/otelcol-audit
COPY collector/config.yaml /etc/otelcol-audit/
COPY collector/profiles /etc/otelcol-audit/profiles
# A named volume takes over owner and mode of what it covers.
COPY --from=build --chown=10001:10001 /state /var/lib/otelcol-audit
ENV OTELCOL_HOST=0.0.0.0
USER 10001:10001
VOLUME ["/var/lib/otelcol-audit"]
EXPOSE 4317 4318 4328 8888 13133
# No HEALTHCHECK: it would need a program to ask with. Ask http://HOST:13133/ from outside.
ENTRYPOINT ["/usr/bin/otelcol-audit"]
CMD ["--config", "/etc/otelcol-audit/config.yaml"]
