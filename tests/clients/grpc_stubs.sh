#!/bin/sh
# Builds the gRPC clients of Go and Java from two definitions of the protocol: Triton's, which its Python wheel holds, and
# proto/inference.proto. The same programs are built on the stubs of both.
#
#   sh tests/clients/grpc_stubs.sh HOME       called by run.sh, after tritonclient is installed below HOME
#
# Java's plugin is Debian's, because Maven Central's program cannot be had everywhere; it is older than the library, whose
# stubs keep their form.
set -eu

PROTOC=4.33.5
GRPC_JAVA=1.85.0
GRPC_GO=v1.85.0
PROTOBUF_GO=v1.36.12
GRPC_GO_PLUGIN=v1.6.0
programs=$(cd "$(dirname "$0")" && pwd)/programs
proto=$programs/../../../proto/inference.proto
home=$1
work=$home/grpc
rm -rf "$work"
mkdir -p "$work/bin" "$work/jars"
cd "$work"

# ---- compiler, plugins and libraries ----

dependency() { # GROUP ARTIFACT VERSION
    echo "<dependency><groupId>$1</groupId><artifactId>$2</artifactId><version>$3</version></dependency>"
}
{
    echo '<project><modelVersion>4.0.0</modelVersion><groupId>moed</groupId><artifactId>clients</artifactId><version>1</version><dependencies>'
    for part in grpc-netty-shaded grpc-protobuf grpc-stub; do dependency io.grpc $part $GRPC_JAVA; done
    for part in protobuf-java protobuf-java-util; do dependency com.google.protobuf $part $PROTOC; done
    dependency javax.annotation javax.annotation-api 1.3.2 # the stubs name one of it
    echo '</dependencies></project>'
} >pom.xml
mvn -q -B dependency:copy-dependencies -DoutputDirectory="$work/jars"
mvn -q -B dependency:copy -Dartifact=com.google.protobuf:protoc:$PROTOC:exe:linux-x86_64 -DoutputDirectory="$work/bin"
apt-get download protobuf-compiler-grpc-java-plugin libprotoc32 libprotobuf32
for package in *.deb; do dpkg-deb --extract "$package" debian; done
GOBIN=$work/bin go install google.golang.org/protobuf/cmd/protoc-gen-go@$PROTOBUF_GO
GOBIN=$work/bin go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@$GRPC_GO_PLUGIN
chmod +x bin/*

# ---- the two definitions, as sets of descriptors ----

protoc() {
    PATH=$work/bin:$PATH LD_LIBRARY_PATH=$(echo debian/usr/lib/*-linux-gnu) "bin/protoc-$PROTOC-linux-x86_64.exe" "$@"
}
"$home/tritonclient/bin/python" - triton.descriptors <<'SAVE'
import sys
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from tritonclient.grpc import model_config_pb2, service_pb2
files = [FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb) for module in (model_config_pb2, service_pb2)]
with open(sys.argv[1], "wb") as file:
    file.write(FileDescriptorSet(file=files).SerializeToString())
SAVE
cp "$proto" grpc_service.proto # Triton's name, which becomes a class of Java
protoc --descriptor_set_out=moed.descriptors grpc_service.proto
rm grpc_service.proto

# ---- one client for each language and definition ----

go_client() { # DEFINITION FILE...
    definition=$1
    shift
    mkdir -p "go-$definition"
    package=
    for file in "$@"; do package=$package,M$file=clients/inference; done
    protoc --descriptor_set_in="$definition.descriptors" --go_out="go-$definition" --go_opt="module=clients$package" \
        --go-grpc_out="go-$definition" --go-grpc_opt="module=clients$package" "$@"
    cp "$programs/grpc.go" "go-$definition/main.go"
    (cd "go-$definition" && go mod init clients &&
        go get google.golang.org/grpc@$GRPC_GO google.golang.org/protobuf@$PROTOBUF_GO && go build -o client)
}

java_client() { # DEFINITION FILE...
    definition=$1
    shift
    mkdir -p "java-$definition/classes"
    protoc --descriptor_set_in="$definition.descriptors" --java_out="java-$definition" \
        --plugin=protoc-gen-grpc-java=debian/usr/bin/grpc_java_plugin --grpc-java_out="java-$definition" "$@"
    javac -nowarn -cp 'jars/*' -d "java-$definition/classes" "java-$definition"/inference/*.java "$programs/Grpc.java"
}

for language in go java; do
    "${language}_client" triton grpc_service.proto model_config.proto
    "${language}_client" moed grpc_service.proto
done
