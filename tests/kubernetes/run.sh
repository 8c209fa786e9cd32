#!/bin/sh
# The chart and KServe's runtime, read as an API server reads them, without a cluster.
#
#   sh tests/kubernetes/run.sh
#
# Builds Helm and a program of Kubernetes' own parts (decode.go) from Go's module proxy, once, below build/kubernetes: some
# minutes, and 1 GB in Go's caches. Definitions (CRDs) are those that KServe and the Prometheus operator publish in their modules.
# Exit status 0: every object of every rendering is accepted, and misspelt ones are not.
set -eu

cd "$(dirname "$0")/../.."
home=$PWD/build/kubernetes
HELM=v3.16.4
KUBERNETES=v0.31.3
KSERVE=github.com/kserve/kserve@v0.15.2
OPERATOR=github.com/prometheus-operator/prometheus-operator@v0.79.2
mkdir -p "$home"

say() { echo "kubernetes: $*"; }

# The directory of a module that is downloaded.
module() { (cd "$home" && go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p'); }

[ -x "$home/helm" ] || GOBIN=$home go install "helm.sh/helm/v3/cmd/helm@$HELM"
if ! cmp -s tests/kubernetes/decode.go "$home/decode.go" || [ ! -x "$home/decode" ]; then
    (
        cp tests/kubernetes/decode.go "$home/" && cd "$home" && rm -f go.mod go.sum
        go mod init moed.test/kubernetes 2>/dev/null
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
render --set autoscaling.enabled=true,autoscaling.targetQueueRows=100,serviceMonitor.enabled=true,tokens.secret=t,tls.secret=s,admin.port=8081 \
    --set models.volume.persistentVolumeClaim.claimName=models | accepted "chart, everything on"
render --set models.volume.image.reference=registry.example/models:1,models.subPath=v1 | accepted "chart, models in an image volume"
accepted "KServe" <deploy/kserve/servingruntime.yaml
render | sed 's/readOnlyRootFilesystem/readOnlyRootFileSystem/' | refused "a chart with a misspelt field"
sed 's/autoSelect/autoselect/' deploy/kserve/servingruntime.yaml | refused "a runtime with a misspelt field"
