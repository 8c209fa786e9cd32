# docker build -t moed . && docker run --rm -p 8080:8080 moed
#
# Options are environment variables (-e MOED_MAX_BATCH_ROWS=128) or flags after the command
# (docker run moed serve --max-batch-rows 128). Other models: -v /my/models:/srv/moed/models:ro.
# --build-arg OPENBLAS=libopenblas.so.0 adds the library that MOED_KERNEL=openblas loads, about 40 MB.
#
# For amd64 and arm64: docker buildx build --platform linux/amd64,linux/arm64 .
# The build stage cross-compiles, so nothing is emulated. It takes BuildKit (Docker 23 or later) or buildah.
#
# The image has the server, its shared libraries, their licences and a list of all of these
# (/usr/share/doc/moed/sbom.spdx.json). It has no shell and no package manager.

ARG BASE=debian:12-slim
FROM --platform=$BUILDPLATFORM ${BASE} AS build
WORKDIR /src
ARG TARGETARCH
COPY deploy/container deploy/container
RUN sh deploy/container/build.sh packages
COPY CMakeLists.txt CMakePresets.json ./
COPY core core
COPY proto proto
COPY server server
COPY clients/web clients/web
RUN sh deploy/container/build.sh program
ARG OPENBLAS=
RUN sh deploy/container/root.sh /usr/bin/moed /image ${OPENBLAS}

FROM scratch
COPY --from=build /image/ /
COPY deploy/models /srv/moed/models

# Clients are outside the container; the published ports decide who can connect.
ENV MOED_HOST=0.0.0.0 MOED_MODELS=/srv/moed/models
EXPOSE 8080

# A numeric user, which Kubernetes can check not to be root without reading the image. The server
# writes nothing, so the root file system may be read-only.
USER 10001:10001

HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["/usr/bin/moed", "probe"]

# Exec form: the server is the container's first process and receives SIGTERM, on which it drains.
ENTRYPOINT ["/usr/bin/moed"]
CMD ["serve"]
