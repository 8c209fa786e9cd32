// Reads Kubernetes objects from standard input as an API server does: its own kinds strictly by its types and then by
// its validation, others by the definitions (CRDs) in the files that are named; then looks whether what the objects
// say of each other is so. Prints each kind; exit status 1 if any object would be refused, or would do nothing.
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
	documents "k8s.io/apimachinery/pkg/util/yaml"
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

// An object of a kind that a CRD defines.
func decodeCustom(document []byte, by definition) (map[string]interface{}, error) {
	var object map[string]interface{}
	if err := yaml.UnmarshalStrict(document, &object); err != nil {
		return nil, err
	}
	if wrong := validation.ValidateCustomResource(nil, object, by.validator); len(wrong) > 0 {
		return nil, wrong.ToAggregate()
	}
	options := structural.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}
	if unknown := pruning.PruneWithOptions(object, by.schema, true, options); len(unknown) > 0 {
		return nil, fmt.Errorf("unknown fields: %v", unknown)
	}
	return object, nil
}

// Reads an object and puts it among the others.
func read(document []byte, kind schema.GroupVersionKind, known map[schema.GroupVersionKind]definition, all *objects) error {
	if by, custom := known[kind]; custom {
		object, err := decodeCustom(document, by)
		if err != nil {
			return err
		}
		return all.addCustom(kind.Kind, object)
	}
	object, err := decodeValid(document)
	if err != nil {
		return err
	}
	return all.add(kind.Kind, object)
}

func main() {
	known, status := readDefinitions(os.Args[1:]), 0
	reader := documents.NewYAMLReader(bufio.NewReader(os.Stdin))
	var all objects
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
		if err := read(document, schema.FromAPIVersionAndKind(named.APIVersion, named.Kind), known, &all); err != nil {
			fmt.Printf("%s %s: REFUSED: %v\n", named.APIVersion, named.Kind, err)
			status = 1
			continue
		}
		fmt.Printf("%s %s\n", named.APIVersion, named.Kind)
	}
	for _, wrong := range all.unrelated() {
		fmt.Printf("WRONG: %s\n", wrong)
		status = 1
	}
	os.Exit(status)
}
