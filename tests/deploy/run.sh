#!/bin/sh
# The chart and KServe's runtime, read as an API server reads them, without a cluster, and the file of Compose.
#
#   sh tests/deploy/run.sh
#
# Builds Helm, a program of Kubernetes' own parts (decode.go, validate.go, relations.go) and that of the Compose specification from Go's module proxy, once, below
# build/deploy: ten minutes of two busy cores, and gigabytes in Go's caches. Definitions (CRDs) are those that KServe and the Prometheus operator publish in
# their modules. Exit status 0: all of it is accepted, and what is misspelt is not.
set -eu

cd "$(dirname "$0")/../.."
home=$PWD/build/deploy
HELM=v3.16.4
COMPOSE=v2.4.7
KUBERNETES=31.3 # of 1 and, as a part, of 0
KSERVE=github.com/kserve/kserve@v0.15.2
OPERATOR=github.com/prometheus-operator/prometheus-operator@v0.79.2
mkdir -p "$home"

say() { echo "deploy: $*"; }

# The directory of a module that is downloaded.
module() { (cd "$home" && go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p'); }

[ -x "$home/helm" ] || GOBIN=$home go install "helm.sh/helm/v3/cmd/helm@$HELM"
[ -x "$home/compose" ] || { GOBIN=$home go install "github.com/compose-spec/compose-go/v2/cmd@$COMPOSE" && mv "$home/cmd" "$home/compose"; }
sources=$(cat tests/deploy/*.go | cksum)
if [ "$sources" != "$(cat "$home/decode.built" 2>/dev/null)" ]; then
    (
        cp tests/deploy/*.go "$home/" && cd "$home" && rm -f go.mod go.sum
        go mod init moed.test/deploy 2>/dev/null
        # Kubernetes' module names its parts by paths in its repository; they are published as modules, too.
        for part in $(sed -n 's|^.*\(k8s.io/[^ ]*\) => ./staging.*|\1|p' "$(module "k8s.io/kubernetes@v1.$KUBERNETES")/go.mod"); do
            go mod edit -replace "$part=$part@v0.$KUBERNETES"
        done
        go get "k8s.io/kubernetes@v1.$KUBERNETES" "k8s.io/apiextensions-apiserver@v0.$KUBERNETES" 2>/dev/null
        go build -mod=mod -o decode .
    )
    echo "$sources" >"$home/decode.built"
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
    decode | grep -q 'REFUSED\|^WRONG' || { say "$1 is accepted"; exit 1; }
    say "$1 is refused, as it should be"
}

render() { "$home/helm" template release deploy/helm/moed --kube-version 1.31.0 "$@"; }

"$home/helm" lint --strict deploy/helm/moed >/dev/null
render | accepted "chart"
scraped=serviceMonitor.authorization.credentials.name=p,serviceMonitor.authorization.credentials.key=token
scraped=$scraped,serviceMonitor.tlsConfig.serverName=moed.example,serviceMonitor.tlsConfig.ca.secret.name=s,serviceMonitor.tlsConfig.ca.secret.key=ca.crt
render --set autoscaling.enabled=true,autoscaling.targetQueueRows=100,serviceMonitor.enabled=true,tokens.secret=t,tls.secret=s,admin.port=8081,grpc.port=9000 \
    --set-json 'state.volume={"emptyDir":{}}' \
    --set "models.volume.persistentVolumeClaim.claimName=models,models.subPath=v1,$scraped" | accepted "chart, everything on"
render --set models.volume.image.reference=registry.example/models:1 | accepted "chart, models in an image volume"
accepted "KServe" <deploy/kserve/servingruntime.yaml
render | sed 's/readOnlyRootFilesystem/readOnlyRootFileSystem/' | refused "a chart with a misspelt field"
render | sed 's/memory: 1Gi/memory: 1Gb/' | refused "a quantity that is none"
render | sed 's/containerPort: 8080/containerPort: 80800/' | refused "a port beyond 65535"
render --set fullnameOverride=Moed | refused "a name that is no DNS label"
render --set autoscaling.enabled=true,autoscaling.minReplicas=9,autoscaling.maxReplicas=3 | refused "an autoscaler from nine to three"
render | sed 's/port: http}/port: htttp}/' | refused "a port that no container has"
render | sed '/^kind: Service$/,/^---/s/instance: release/instance: other/' | refused "a service that finds no pod"
render | sed '/^kind: PodDisruptionBudget$/,/^---/s/instance: release/instance: other/' | refused "a budget that finds no pod"
render --set serviceMonitor.enabled=true | sed '/^kind: ServiceMonitor$/,$s/instance: release/instance: other/' | refused "a monitor that finds no service"
render --set serviceMonitor.enabled=true,tls.secret=s | sed 's/scheme: https/scheme: http/' | refused "a monitor without TLS"
render --set autoscaling.enabled=true | sed '/requests:/,/memory/s/cpu:/ephemeral-storage:/' | refused "an autoscaler by a share of nothing"
render --set admin.port=8081,options.admin_listen=0.0.0.0:8082 | refused "a variable that is set twice"
render --set podLabels.app\\.kubernetes\\.io/name=other | refused "a label that is set twice"
sed 's/autoSelect/autoselect/' deploy/kserve/servingruntime.yaml | refused "a runtime with a misspelt field"
sed 's/live, port: 8080/live, port: 8081/' deploy/kserve/servingruntime.yaml | refused "a runtime with a probe of another port"

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
