// What objects say of each other, which no API server looks at: a selector that finds no pod is accepted, and does nothing.
package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/kubernetes/pkg/apis/apps"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	"k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/networking"
	"k8s.io/kubernetes/pkg/apis/policy"
)

type pod struct {
	owner  string // kind and name
	labels labels.Set
	spec   core.PodSpec
}

// The part of a ServiceMonitor that names others.
type monitor struct {
	Metadata struct{ Name string }
	Spec     struct {
		Selector  metav1.LabelSelector
		Endpoints []endpoint
	}
}

type endpoint struct {
	Port, Scheme string
	TargetPort   *intstr.IntOrString
}

type objects struct {
	names    map[string]bool // kind and name
	pods     []pod
	services []*core.Service
	scalers  []*autoscaling.HorizontalPodAutoscaler
	budgets  []*policy.PodDisruptionBudget
	policies []*networking.NetworkPolicy
	monitors []monitor
	wrong    []string
}

func (all *objects) say(format string, arguments ...interface{}) {
	all.wrong = append(all.wrong, fmt.Sprintf(format, arguments...))
}

// ---- collecting ----

func (all *objects) enter(kind, name string) error {
	if all.names == nil {
		all.names = map[string]bool{}
	}
	if all.names[kind+" "+name] {
		return fmt.Errorf("there are two of the name %s", name)
	}
	all.names[kind+" "+name] = true
	return nil
}

func (all *objects) add(kind string, object runtime.Object) error {
	named, err := meta.Accessor(object)
	must(err)
	switch object := object.(type) {
	case *apps.Deployment:
		template := object.Spec.Template
		all.pods = append(all.pods, pod{kind + " " + named.GetName(), template.Labels, template.Spec})
	case *core.Service:
		all.services = append(all.services, object)
	case *autoscaling.HorizontalPodAutoscaler:
		all.scalers = append(all.scalers, object)
	case *policy.PodDisruptionBudget:
		all.budgets = append(all.budgets, object)
	case *networking.NetworkPolicy:
		all.policies = append(all.policies, object)
	}
	return all.enter(kind, named.GetName())
}

// Containers of KServe's runtime, as the pod that KServe makes of them; its other parts come from elsewhere.
func (all *objects) addRuntime(owner string, containers interface{}) error {
	text, err := json.Marshal(map[string]interface{}{"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]interface{}{"name": "runtime"}, "spec": map[string]interface{}{"containers": containers}})
	must(err)
	made, err := decodeValid(text)
	if err != nil {
		return err
	}
	all.pods = append(all.pods, pod{owner, nil, made.(*core.Pod).Spec})
	return nil
}

func (all *objects) addCustom(kind string, object map[string]interface{}) error {
	text, err := json.Marshal(object)
	must(err)
	var read struct {
		Metadata struct{ Name string }
		Spec     struct{ Containers []interface{} }
	}
	must(json.Unmarshal(text, &read))
	if kind == "ServiceMonitor" {
		var item monitor
		must(json.Unmarshal(text, &item))
		all.monitors = append(all.monitors, item)
	}
	if len(read.Spec.Containers) > 0 {
		if err := all.addRuntime(kind+" "+read.Metadata.Name, read.Spec.Containers); err != nil {
			return err
		}
	}
	return all.enter(kind, read.Metadata.Name)
}

// ---- pods ----

func (one pod) hasPort(wanted intstr.IntOrString) bool {
	for _, container := range one.spec.Containers {
		if hasPort(container, wanted) {
			return true
		}
	}
	return false
}

func hasPort(container core.Container, wanted intstr.IntOrString) bool {
	for _, port := range container.Ports {
		if wanted.Type == intstr.String && port.Name == wanted.StrVal || wanted.Type == intstr.Int && port.ContainerPort == wanted.IntVal {
			return true
		}
	}
	return false
}

// What the readiness probe speaks; "" without one.
func (one pod) scheme() string {
	for _, container := range one.spec.Containers {
		if probe := container.ReadinessProbe; probe != nil && probe.HTTPGet != nil {
			return strings.ToLower(string(probe.HTTPGet.Scheme))
		}
	}
	return ""
}

func (all *objects) checkContainer(owner string, container core.Container) {
	for _, probe := range []*core.Probe{container.StartupProbe, container.LivenessProbe, container.ReadinessProbe} {
		if probe != nil && probe.HTTPGet != nil && !hasPort(container, probe.HTTPGet.Port) {
			all.say("%s: a probe asks port %s, which container %s does not have", owner, probe.HTTPGet.Port.String(), container.Name)
		}
	}
	seen := map[string]bool{}
	for _, variable := range container.Env {
		if seen[variable.Name] {
			all.say("%s: container %s has the variable %s twice", owner, container.Name, variable.Name)
		}
		seen[variable.Name] = true
	}
}

func (all *objects) checkPod(one pod) {
	account := one.spec.ServiceAccountName
	if account != "" && !all.names["ServiceAccount "+account] {
		all.say("%s: there is no ServiceAccount %s", one.owner, account)
	}
	for _, container := range one.spec.Containers {
		all.checkContainer(one.owner, container)
	}
}

// ---- those that select pods ----

func selectorOf(selector *metav1.LabelSelector) labels.Selector {
	made, err := metav1.LabelSelectorAsSelector(selector)
	must(err)
	return made
}

// The pods that a selector finds; that there are none is a fault.
func (all *objects) selected(owner string, selector labels.Selector) []pod {
	var found []pod
	for _, one := range all.pods {
		if one.labels != nil && selector.Matches(one.labels) {
			found = append(found, one)
		}
	}
	if len(found) == 0 {
		all.say("%s: its selector %s finds no pod", owner, selector)
	}
	return found
}

func (all *objects) checkService(service *core.Service) {
	owner := "Service " + service.Name
	for _, one := range all.selected(owner, labels.SelectorFromSet(service.Spec.Selector)) {
		for _, port := range service.Spec.Ports {
			if !one.hasPort(port.TargetPort) {
				all.say("%s: %s has no port %s", owner, one.owner, port.TargetPort.String())
			}
			if port.AppProtocol != nil && *port.AppProtocol != one.scheme() {
				all.say("%s: port %s is said to be %s, but %s is probed by %s", owner, port.Name, *port.AppProtocol, one.owner, one.scheme())
			}
		}
	}
}

func (all *objects) checkPolicy(item *networking.NetworkPolicy) {
	owner := "NetworkPolicy " + item.Name
	var ports []networking.NetworkPolicyPort
	for _, rule := range item.Spec.Ingress {
		ports = append(ports, rule.Ports...)
	}
	for _, one := range all.selected(owner, selectorOf(&item.Spec.PodSelector)) {
		for _, port := range ports {
			if port.Port != nil && !one.hasPort(*port.Port) {
				all.say("%s: %s has no port %s", owner, one.owner, port.Port.String())
			}
		}
	}
}

// A share is one of what a container requests.
func (all *objects) checkShare(owner string, metric autoscaling.MetricSpec, one pod) {
	if metric.Resource == nil || metric.Resource.Target.AverageUtilization == nil {
		return
	}
	for _, container := range one.spec.Containers {
		if _, has := container.Resources.Requests[metric.Resource.Name]; !has {
			all.say("%s: container %s requests no %s to use a share of", owner, container.Name, metric.Resource.Name)
		}
	}
}

func (all *objects) checkScaler(scaler *autoscaling.HorizontalPodAutoscaler) {
	owner := "HorizontalPodAutoscaler " + scaler.Name
	target := scaler.Spec.ScaleTargetRef.Kind + " " + scaler.Spec.ScaleTargetRef.Name
	if !all.names[target] {
		all.say("%s: there is no %s", owner, target)
	}
	for _, one := range all.pods {
		for _, metric := range scaler.Spec.Metrics {
			if one.owner == target {
				all.checkShare(owner, metric, one)
			}
		}
	}
}

// ---- a ServiceMonitor, which selects services ----

func hasServicePort(service *core.Service, name string) bool {
	for _, port := range service.Spec.Ports {
		if port.Name == name {
			return true
		}
	}
	return false
}

func (all *objects) checkEndpoint(owner string, from endpoint, service *core.Service) {
	if from.Port != "" && !hasServicePort(service, from.Port) {
		all.say("%s: Service %s has no port %s", owner, service.Name, from.Port)
	}
	if from.Scheme == "" {
		from.Scheme = "http"
	}
	for _, one := range all.selected(owner, labels.SelectorFromSet(service.Spec.Selector)) {
		if from.TargetPort != nil && !one.hasPort(*from.TargetPort) {
			all.say("%s: %s has no port %s", owner, one.owner, from.TargetPort.String())
		}
		if from.Scheme != one.scheme() {
			all.say("%s: it scrapes by %s, but %s is probed by %s", owner, from.Scheme, one.owner, one.scheme())
		}
	}
}

func (all *objects) checkMonitor(item monitor) {
	owner := "ServiceMonitor " + item.Metadata.Name
	selector, found := selectorOf(&item.Spec.Selector), false
	for _, service := range all.services {
		if !selector.Matches(labels.Set(service.Labels)) {
			continue
		}
		found = true
		for _, from := range item.Spec.Endpoints {
			all.checkEndpoint(owner, from, service)
		}
	}
	if !found {
		all.say("%s: its selector %s finds no service", owner, selector)
	}
}

// What does not fit together in the objects that were accepted.
func (all *objects) unrelated() []string {
	for _, one := range all.pods {
		all.checkPod(one)
	}
	for _, service := range all.services {
		all.checkService(service)
	}
	for _, budget := range all.budgets {
		all.selected("PodDisruptionBudget "+budget.Name, selectorOf(budget.Spec.Selector))
	}
	for _, item := range all.policies {
		all.checkPolicy(item)
	}
	for _, scaler := range all.scalers {
		all.checkScaler(scaler)
	}
	for _, item := range all.monitors {
		all.checkMonitor(item)
	}
	return all.wrong
}
