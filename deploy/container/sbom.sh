#!/bin/sh
# Prints what an image holds as an SPDX 2.3 document in JSON: moed and the Debian packages whose
# files are in it.
#
#   sbom.sh VERSION PACKAGE...
set -eu

version=$1
shift
created=$(date -u -d "@${SOURCE_DATE_EPOCH:-$(date +%s)}" +%Y-%m-%dT%H:%M:%SZ)

# One package; its SPDX identifier may hold letters, digits, '.' and '-' only.
package() { # NAME VERSION PURL
    printf '    {"SPDXID": "SPDXRef-%s", "name": "%s", "versionInfo": "%s",\n' \
        "$(echo "$1" | tr -c 'A-Za-z0-9.\n-' '-')" "$1" "$2"
    printf '     "downloadLocation": "NOASSERTION", "filesAnalyzed": false,\n'
    printf '     "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION",\n'
    printf '     "copyrightText": "NOASSERTION",\n'
    printf '     "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",\n'
    printf '                       "referenceLocator": "%s"}]}' "$3"
}

cat <<HEAD
{"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
 "name": "moed-$version", "documentNamespace": "https://spdx.org/spdxdocs/moed-$version-$created",
 "creationInfo": {"created": "$created", "creators": ["Tool: moed-sbom.sh"]},
 "packages": [
HEAD
package moed "$version" "pkg:generic/moed@$version"
related=
for name in "$@"; do
    echo ,
    debian=$(dpkg-query --show --showformat '${Version}' "$name")
    architecture=$(dpkg-query --show --showformat '${Architecture}' "$name")
    short=${name%%:*}
    package "$short" "$debian" \
        "pkg:deb/debian/$short@$(echo "$debian" | sed 's/+/%2B/g; s/~/%7E/g; s/:/%3A/g')?arch=$architecture"
    related="$related,
    {\"spdxElementId\": \"SPDXRef-moed\", \"relationshipType\": \"DEPENDS_ON\",
     \"relatedSpdxElement\": \"SPDXRef-$(echo "$short" | tr -c 'A-Za-z0-9.\n-' '-')\"}"
done
cat <<TAIL

 ],
 "relationships": [
    {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES",
     "relatedSpdxElement": "SPDXRef-moed"}$related
 ]}
TAIL
