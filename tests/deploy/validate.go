// Kubernetes' own decoding, defaults and validation: names, ports, quantities, labels, mounts, what excludes what.
package main

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/util/feature"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install"
	autoscalingvalidation "k8s.io/kubernetes/pkg/apis/autoscaling/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/apis/policy"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	policyvalidation "k8s.io/kubernetes/pkg/apis/policy/validation"
)

var podOptions = corevalidation.PodValidationOptions{AllowImageVolumeSource: true}

// Volumes from images are a feature that this version has, switched off; their defaults ask for the switch.
func init() { must(feature.DefaultMutableFeatureGate.Set("ImageVolume=true")) }

func validate(object runtime.Object) (field.ErrorList, error) {
	switch object := object.(type) {
	case *apps.Deployment:
		return appsvalidation.ValidateDeployment(object, podOptions), nil
	case *core.Pod:
		return corevalidation.ValidatePodCreate(object, podOptions), nil
	case *core.Service:
		return corevalidation.ValidateServiceCreate(object), nil
	case *core.ServiceAccount:
		return corevalidation.ValidateServiceAccount(object), nil
	case *autoscaling.HorizontalPodAutoscaler:
		return autoscalingvalidation.ValidateHorizontalPodAutoscaler(object), nil
	case *policy.PodDisruptionBudget:
		return policyvalidation.ValidatePodDisruptionBudget(object, policyvalidation.PodDisruptionBudgetValidationOptions{}), nil
	case *networking.NetworkPolicy:
		return networkingvalidation.ValidateNetworkPolicy(object, networkingvalidation.NetworkPolicyValidationOptions{}), nil
	}
	return nil, fmt.Errorf("no validation is known for %T", object)
}

// The object in Kubernetes' internal form, with defaults; unknown and repeated fields are errors.
func decodeValid(document []byte) (runtime.Object, error) {
	codecs := serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict)
	object, err := runtime.Decode(codecs.UniversalDecoder(), document)
	if err != nil {
		return nil, err
	}
	named, err := meta.Accessor(object)
	if err != nil {
		return nil, err
	}
	if named.GetNamespace() == "" {
		named.SetNamespace("default") // Helm sets the release's
	}
	wrong, err := validate(object)
	if err != nil {
		return nil, err
	}
	return object, wrong.ToAggregate()
}
