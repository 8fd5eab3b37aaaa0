// Package check proves, without a cluster, a daemon or a network, that what lies in deploy can be deployed: manifests decode
// into the types of Kubernetes with no field left over, and hold to the rules of policy.go; the compose files, the Dockerfile,
// the alert rules and the dashboards are read by what reads them in earnest. It is a module of its own, so that the shop's
// go.mod knows nothing of Kubernetes. It deploys nothing.
package check

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// Overlay is what one kustomize overlay builds.
type Overlay struct {
	Name            string
	Objects         []runtime.Object
	Deployments     []*appsv1.Deployment
	Jobs            []*batchv1.Job
	Services        []*corev1.Service
	ConfigMaps      []*corev1.ConfigMap
	Secrets         []*corev1.Secret
	Accounts        []*corev1.ServiceAccount
	Scalers         []*autoscalingv2.HorizontalPodAutoscaler
	Budgets         []*policyv1.PodDisruptionBudget
	NetworkPolicies []*networkingv1.NetworkPolicy
}

// Build runs kustomize on the overlay at dir of a disk and decodes all that comes out, strictly: a field that Kubernetes does not know,
// and one said twice, is an error, as is an object of a kind that is not listed here.
func Build(disk filesys.FileSystem, dir string) (*Overlay, error) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(disk, dir)
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", dir, err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		appsv1.AddToScheme, autoscalingv2.AddToScheme, batchv1.AddToScheme, corev1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	strict := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	o := &Overlay{Name: filepath.Base(dir)}
	var all []error
	for _, r := range built.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			return nil, err
		}
		object, _, err := strict.Decode(text, nil, nil)
		if err != nil {
			all = append(all, fmt.Errorf("%s %s: %w", r.GetKind(), r.GetName(), err))
			continue
		}
		o.Objects = append(o.Objects, object)
		switch v := object.(type) {
		case *appsv1.Deployment:
			o.Deployments = append(o.Deployments, v)
		case *batchv1.Job:
			o.Jobs = append(o.Jobs, v)
		case *corev1.Service:
			o.Services = append(o.Services, v)
		case *corev1.ConfigMap:
			o.ConfigMaps = append(o.ConfigMaps, v)
		case *corev1.Secret:
			o.Secrets = append(o.Secrets, v)
		case *corev1.ServiceAccount:
			o.Accounts = append(o.Accounts, v)
		case *autoscalingv2.HorizontalPodAutoscaler:
			o.Scalers = append(o.Scalers, v)
		case *policyv1.PodDisruptionBudget:
			o.Budgets = append(o.Budgets, v)
		case *networkingv1.NetworkPolicy:
			o.NetworkPolicies = append(o.NetworkPolicies, v)
		default:
			all = append(all, fmt.Errorf("%s %s: nothing checks this kind: teach deploy/check", r.GetKind(), r.GetName()))
		}
	}
	return o, errors.Join(all...)
}

// shopYAML is the settings file in the overlay's ConfigMap.
func (o *Overlay) shopYAML() (name string, text []byte, err error) {
	for _, c := range o.ConfigMaps {
		if s, ok := c.Data["shop.yaml"]; ok {
			return c.Name, bytes.TrimSpace([]byte(s)), nil
		}
	}
	return "", nil, errors.New("no ConfigMap has a shop.yaml")
}
