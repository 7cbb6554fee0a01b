# A SuperNode, for `docker build -f docker/supernode.Dockerfile .` from the root of the repository.
#
#   --target slim           without Python, for --isolation process; without --target, apps can run inside
#   --build-arg ...         see docker/README.md, "Build Images"

ARG BASE_IMAGE=debian:bookworm-slim
ARG RUST_IMAGE=rust:1.95-slim-bookworm

# -- the program: compiled, or the one that lies in docker/build/prebuilt --------------------------
FROM ${RUST_IMAGE} AS program
ARG EXTRA_CA APT_MIRROR
WORKDIR /src
COPY . .
RUN sh docker/build/program.sh /out

# -- without Python --------------------------------------------------------------------------------
FROM ${BASE_IMAGE} AS slim
ARG EXTRA_CA APT_MIRROR
COPY docker/build/apt.sh docker/build/system.sh /tmp/build/
RUN sh /tmp/build/system.sh && rm -r /tmp/build
COPY docker/build/healthcheck.sh /usr/local/bin/flwr-quic-healthcheck
COPY --from=program /out/ /usr/local/bin/
ENV FLWR_QUIC_HEALTH_SERVER_ADDRESS=127.0.0.1:9099
USER 49999:49999
WORKDIR /app
EXPOSE 9094
HEALTHCHECK --interval=5s --timeout=8s --start-period=300s --retries=3 CMD ["flwr-quic-healthcheck"]
ENTRYPOINT ["tini", "--", "flwr-quic", "supernode"]

# -- Flower's Python programs, and what apps need ---------------------------------------------------
FROM ${BASE_IMAGE} AS python
ARG EXTRA_CA APT_MIRROR PIP_INDEX_URL PIP_EXTRA_INDEX_URL
COPY docker/build/apt.sh docker/build/python.sh docker/requirements.txt /tmp/build/
RUN sh /tmp/build/python.sh install /opt/flower

# -- with Python -----------------------------------------------------------------------------------
FROM slim AS full
ARG EXTRA_CA APT_MIRROR
USER 0:0
COPY docker/build/apt.sh docker/build/python.sh /tmp/build/
RUN sh /tmp/build/python.sh interpreter && rm -r /tmp/build
COPY --from=python /opt/flower /opt/flower
ENV PATH=/opt/flower/bin:$PATH
USER 49999:49999
