# docker build -t kube-userspace-proxy .
# For a release pin the base by digest: --build-arg NODE_IMAGE=node:24-bookworm-slim@sha256:…
ARG NODE_IMAGE=node:24-bookworm-slim

# 1. The tools. Optional packages are wanted here: the TypeScript compiler itself comes as one.
FROM ${NODE_IMAGE} AS tools
WORKDIR /src
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts --no-audit --no-fund

# 2. The native engine. On the base of the image, so that it meets the same C library there.
FROM tools AS native
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ make python3 \
 && rm -rf /var/lib/apt/lists/*
COPY scripts/build-native.sh scripts/
COPY native ./native
RUN sh scripts/build-native.sh && strip --strip-debug native/build/Release/kup_engine.node

# 3. TypeScript to JavaScript.
FROM tools AS build
COPY tsconfig.json tsconfig.build.json ./
COPY src ./src
RUN npm run build

# 4. What it needs at run time. The optional packages are a second copy of Node for development: left out.
FROM ${NODE_IMAGE} AS production
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund

# 5. The image.
FROM ${NODE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="kube-userspace-proxy" \
      org.opencontainers.image.description="A Kubernetes Service proxy in userspace mode" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# iptables writes the rules, ip shows addresses, conntrack forgets UDP flows to old ports. tini is the
# init: as process 1 Node would neither reap what it starts nor die of a signal that it does not handle.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates conntrack iproute2 iptables tini \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /app
ENV NODE_ENV=production
COPY package.json LICENSE ./
COPY --from=production /app/node_modules ./node_modules
COPY --from=build /src/dist ./dist
COPY --from=native /src/native/build/Release/kup_engine.node ./native/build/Release/
RUN ln -s /app/dist/main.js /usr/local/bin/kube-userspace-proxy \
 && kube-userspace-proxy --version \
 && node --eval 'require("/app/native/build/Release/kup_engine.node")'

# Root, because rules can only be written with NET_ADMIN; everything else is taken away in deploy/daemonset.yaml.
USER root
# SIGTERM: health turns 503, listeners keep accepting until --drain-timeout, the rules stay.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/tini", "--", "kube-userspace-proxy"]
CMD ["--help"]
