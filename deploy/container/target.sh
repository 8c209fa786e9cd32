# What the image is for, sourced by the scripts of the build stage: TARGETARCH, which BuildKit and buildah set, or else
# this machine's. Sets native and architecture (Debian's names), processor and triplet.
native=$(dpkg --print-architecture)
architecture=${TARGETARCH:-$native}
case $architecture in
amd64) processor=x86_64 ;;
arm64) processor=aarch64 ;;
*) echo "architecture $architecture; expected amd64 or arm64" >&2 && exit 1 ;;
esac
triplet=$processor-linux-gnu
