package main

import (
	"context"
	"fmt"

	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// kubernetes builds a kustomization as `kustomize build --load-restrictor LoadRestrictionsNone` does, and
// decodes every object strictly: an unknown kind, an unknown or repeated field, a wrong type are errors.
func kubernetes(_ context.Context, arguments []string) (any, error) {
	if len(arguments) != 1 {
		return nil, fmt.Errorf("kubernetes takes one DIRECTORY")
	}
	options := krusty.MakeDefaultOptions()
	options.LoadRestrictions = types.LoadRestrictionsNone
	built, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), arguments[0])
	if err != nil {
		return nil, err
	}
	// Only the kinds in use: all that Kubernetes knows would take minutes to compile.
	known := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		apps.AddToScheme, batch.AddToScheme, core.AddToScheme, networking.AddToScheme, policy.AddToScheme,
	} {
		if err := add(known); err != nil {
			return nil, err
		}
	}
	strict := serializer.NewCodecFactory(known, serializer.EnableStrict).UniversalDeserializer()
	objects := []map[string]any{}
	for _, resource := range built.Resources() {
		text, err := resource.AsYAML()
		if err != nil {
			return nil, err
		}
		if _, _, err := strict.Decode(text, nil, nil); err != nil {
			return nil, fmt.Errorf("%s: %w", resource.CurId(), err)
		}
		object, err := resource.Map()
		if err != nil {
			return nil, err
		}
		objects = append(objects, object)
	}
	return objects, nil
}
