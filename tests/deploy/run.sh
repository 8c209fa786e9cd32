#!/bin/sh
# The chart and KServe's runtime, read as an API server reads them, without a cluster, and the file of Compose.
#
#   sh tests/deploy/run.sh
#
# Builds Helm, a program of Kubernetes' own parts (decode.go) and that of the Compose specification from Go's module proxy, once, below
# build/deploy: some minutes, and 1 GB in Go's caches. Definitions (CRDs) are those that KServe and the Prometheus operator publish in
# their modules. Exit status 0: all of it is accepted, and what is misspelt is not.
set -eu

cd "$(dirname "$0")/../.."
home=$PWD/build/deploy
HELM=v3.16.4
COMPOSE=v2.4.7
KUBERNETES=v0.31.3
KSERVE=github.com/kserve/kserve@v0.15.2
OPERATOR=github.com/prometheus-operator/prometheus-operator@v0.79.2
mkdir -p "$home"

say() { echo "deploy: $*"; }

# The directory of a module that is downloaded.
module() { (cd "$home" && go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p'); }

[ -x "$home/helm" ] || GOBIN=$home go install "helm.sh/helm/v3/cmd/helm@$HELM"
[ -x "$home/compose" ] || { GOBIN=$home go install "github.com/compose-spec/compose-go/v2/cmd@$COMPOSE" && mv "$home/cmd" "$home/compose"; }
if ! cmp -s tests/deploy/decode.go "$home/decode.go" || [ ! -x "$home/decode" ]; then
    (
        cp tests/deploy/decode.go "$home/" && cd "$home" && rm -f go.mod go.sum
        go mod init moed.test/deploy 2>/dev/null
        go get "k8s.io/apiextensions-apiserver@$KUBERNETES" "k8s.io/apimachinery@$KUBERNETES" "k8s.io/client-go@$KUBERNETES" 2>/dev/null
        go build -o decode decode.go
    )
fi
kserve=$(module $KSERVE)/config/crd/full
operator=$(module $OPERATOR)/example/prometheus-operator-crd
decode() {
    "$home/decode" "$kserve/serving.kserve.io_clusterservingruntimes.yaml" "$kserve/serving.kserve.io_inferenceservices.yaml" \
        "$operator/monitoring.coreos.com_servicemonitors.yaml"
}

# accepted NAME: the objects on standard input.
accepted() {
    found=$(decode) && [ -n "$found" ] || { say "$1: refused, or empty"; echo "$found"; exit 1; }
    say "$1: $(echo "$found" | sed 's/.* //' | paste -sd ' ')"
}

refused() {
    ! decode >/dev/null || { say "$1 is accepted"; exit 1; }
    say "$1 is refused, as it should be"
}

render() { "$home/helm" template release deploy/helm/moed --kube-version 1.31.0 "$@"; }

"$home/helm" lint --strict deploy/helm/moed >/dev/null
render | accepted "chart"
scraped=serviceMonitor.authorization.credentials.name=p,serviceMonitor.authorization.credentials.key=token
scraped=$scraped,serviceMonitor.tlsConfig.serverName=moed.example,serviceMonitor.tlsConfig.ca.secret.name=s,serviceMonitor.tlsConfig.ca.secret.key=ca.crt
render --set autoscaling.enabled=true,autoscaling.targetQueueRows=100,serviceMonitor.enabled=true,tokens.secret=t,tls.secret=s,admin.port=8081 \
    --set "models.volume.persistentVolumeClaim.claimName=models,$scraped" | accepted "chart, everything on"
render --set models.volume.image.reference=registry.example/models:1,models.subPath=v1 | accepted "chart, models in an image volume"
accepted "KServe" <deploy/kserve/servingruntime.yaml
render | sed 's/readOnlyRootFilesystem/readOnlyRootFileSystem/' | refused "a chart with a misspelt field"
sed 's/autoSelect/autoselect/' deploy/kserve/servingruntime.yaml | refused "a runtime with a misspelt field"

# Its paths are relative to its directory, where docker compose goes by itself.
(cd deploy/compose && "$home/compose" -format json compose.yaml) >"$home/compose.json"
python3 - "$home/compose.json" <<'CHECK'
import json, os, sys
with open(sys.argv[1], encoding="utf-8") as file:
    services = json.load(file)["services"]
for service in services.values():
    for mounted in (volume["source"] for volume in service.get("volumes") or [] if volume["type"] == "bind"):
        assert os.path.exists(mounted), f"{mounted} is mounted, and not there"
print("deploy: Compose:", *services, "and what they mount")
CHECK
sed 's/cap_drop/capdrop/' deploy/compose/compose.yaml >"$home/misspelt.yaml"
! "$home/compose" "$home/misspelt.yaml" >/dev/null 2>&1 || { say "a misspelt service is accepted"; exit 1; }
say "a misspelt service is refused, as it should be"
