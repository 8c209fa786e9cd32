// Reads Kubernetes objects from standard input as an API server does: its own kinds strictly by its types, others by
// the definitions (CRDs) in the files that are named. Prints each kind; exit status 1 if any object would be refused.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"

	extensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	documents "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

type definition struct {
	schema    *structural.Structural
	validator validation.SchemaValidator
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

func readDefinitions(paths []string) map[schema.GroupVersionKind]definition {
	known := map[schema.GroupVersionKind]definition{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		must(err)
		var crd v1.CustomResourceDefinition
		must(yaml.Unmarshal(text, &crd))
		for _, version := range crd.Spec.Versions {
			var props extensions.JSONSchemaProps
			must(v1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(version.Schema.OpenAPIV3Schema, &props, nil))
			shape, err := structural.NewStructural(&props)
			must(err)
			validator, _, err := validation.NewSchemaValidator(&props)
			must(err)
			kind := schema.GroupVersionKind{Group: crd.Spec.Group, Version: version.Name, Kind: crd.Spec.Names.Kind}
			known[kind] = definition{shape, validator}
		}
	}
	return known
}

// What is wrong with an object of a kind that a CRD defines.
func check(document []byte, by definition) error {
	var object map[string]interface{}
	if err := yaml.UnmarshalStrict(document, &object); err != nil {
		return err
	}
	if wrong := validation.ValidateCustomResource(nil, object, by.validator); len(wrong) > 0 {
		return wrong.ToAggregate()
	}
	options := structural.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}
	if unknown := pruning.PruneWithOptions(object, by.schema, true, options); len(unknown) > 0 {
		return fmt.Errorf("unknown fields: %v", unknown)
	}
	return nil
}

func main() {
	known, status := readDefinitions(os.Args[1:]), 0
	strict := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	reader := documents.NewYAMLReader(bufio.NewReader(os.Stdin))
	for {
		document, err := reader.Read()
		if err == io.EOF {
			break
		}
		must(err)
		var named struct{ APIVersion, Kind string }
		must(yaml.Unmarshal(document, &named))
		if len(bytes.TrimSpace(document)) == 0 || named.Kind == "" {
			continue
		}
		by, custom := known[schema.FromAPIVersionAndKind(named.APIVersion, named.Kind)]
		if custom {
			err = check(document, by)
		} else {
			_, _, err = strict.Decode(document, nil, nil)
		}
		if err != nil {
			fmt.Printf("%s %s: REFUSED: %v\n", named.APIVersion, named.Kind, err)
			status = 1
			continue
		}
		fmt.Printf("%s %s\n", named.APIVersion, named.Kind)
	}
	os.Exit(status)
}
