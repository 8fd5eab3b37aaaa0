package check

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

// settings are the parts of shop.yaml that manifests must agree with. The shop itself checks the whole of it.
type settings struct {
	Mode  string `json:"mode"`
	Drain struct {
		Delay   string `json:"delay"`
		Timeout string `json:"timeout"`
	} `json:"drain"`
	Processes map[string]struct {
		HTTP    string    `json:"http"`
		RPC     string    `json:"rpc"`
		Gateway bool      `json:"gateway"`
		Modules *[]string `json:"modules"`
	} `json:"processes"`
}

// closing is what the host may need, after drain.timeout, to close what is open.
const closing = 10 * time.Second

// policy collects complaints about one overlay.
type policy struct {
	*Overlay
	settings settings
	config   string // the ConfigMap
	all      []error
}

func (p *policy) bad(format string, args ...any) { p.all = append(p.all, fmt.Errorf(format, args...)) }

// Check says everything in the overlay that would start, but not as it should.
func (o *Overlay) Check() error {
	p := &policy{Overlay: o}
	name, text, err := o.shopYAML()
	if err != nil {
		return err
	}
	p.config = name
	if err := yaml.Unmarshal(text, &p.settings); err != nil {
		return fmt.Errorf("shop.yaml: %w", err)
	}
	if p.settings.Mode != "production" {
		p.bad("shop.yaml: mode is %q, want production", p.settings.Mode)
	}
	p.processes()
	for _, d := range o.Deployments {
		at := "Deployment " + d.Name
		p.pod(at, d.Spec.Template)
		p.serves(at, d.Spec.Template.Spec)
	}
	for _, j := range o.Jobs {
		p.pod("Job "+j.Name, j.Spec.Template)
		p.comesFirst(j)
	}
	for _, a := range o.Accounts {
		if a.AutomountServiceAccountToken == nil || *a.AutomountServiceAccountToken {
			p.bad("ServiceAccount %s: mounts a token", a.Name)
		}
	}
	for _, s := range o.Secrets {
		for key, value := range s.StringData {
			if !strings.Contains(value, "REPLACE") {
				p.bad("Secret %s: %s is no placeholder", s.Name, key)
			}
			if key == "SHOP_SECRET" && len(value) >= 32 {
				p.bad("Secret %s: the shop would take the placeholder of %s for a secret", s.Name, key)
			}
		}
		if len(s.Data) > 0 {
			p.bad("Secret %s: has data; placeholders are stringData", s.Name)
		}
	}
	p.services()
	p.scaling()
	p.network()
	return errors.Join(p.all...)
}

// processes: the block and the Deployments are the same list, each with its addresses.
func (p *policy) processes() {
	var named []string
	for _, d := range p.Deployments {
		process := d.Spec.Template.Labels["app.kubernetes.io/component"]
		named = append(named, process)
		said, ok := p.settings.Processes[process]
		if !ok {
			p.bad("Deployment %s: shop.yaml has no process %q", d.Name, process)
			continue
		}
		if gateway := d.Spec.Template.Labels["banyan.shop/gateway"] == "true"; gateway != (said.Gateway || said.Modules == nil && !p.hasGateway()) {
			p.bad("Deployment %s: its label banyan.shop/gateway is %v, which is not what shop.yaml says of %s", d.Name, gateway, process)
		}
		p.address("processes."+process+".http", said.HTTP, process, "http")
		if len(p.settings.Processes) > 1 && (said.Modules == nil || len(*said.Modules) > 0) {
			p.address("processes."+process+".rpc", said.RPC, process, "rpc")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.settings.Processes)) {
		if !slices.Contains(named, name) {
			p.bad("shop.yaml: no Deployment runs process %s", name)
		}
	}
}

func (p *policy) hasGateway() bool {
	for _, one := range p.settings.Processes {
		if one.Gateway {
			return true
		}
	}
	return false
}

// address must be a headless Service here whose pods are those of the process, at a port it has.
func (p *policy) address(key, address, process, port string) {
	host, number, ok := strings.Cut(strings.TrimPrefix(address, "dns+http://"), ":")
	if !ok || !strings.HasPrefix(address, "dns+http://") {
		p.bad("shop.yaml: %s is %q, want dns+http://service:port", key, address)
		return
	}
	for _, s := range p.Services {
		if s.Name != host {
			continue
		}
		if s.Spec.ClusterIP != corev1.ClusterIPNone {
			p.bad("Service %s: is not headless, so dns+http finds one address for all pods", host)
		}
		if s.Spec.Selector["app.kubernetes.io/component"] != process {
			p.bad("Service %s: does not select process %s, which shop.yaml reaches by it", host, process)
		}
		for _, one := range s.Spec.Ports {
			if fmt.Sprint(one.Port) == number && one.TargetPort == intstr.FromString(port) {
				return
			}
		}
		p.bad("Service %s: has no port %s to %s of the pods", host, number, port)
		return
	}
	p.bad("shop.yaml: %s names Service %s, which is not there", key, host)
}

// pod is what every pod must be.
func (p *policy) pod(at string, t corev1.PodTemplateSpec) {
	s := t.Spec
	if s.AutomountServiceAccountToken == nil || *s.AutomountServiceAccountToken {
		p.bad("%s: mounts a token of its service account", at)
	}
	if !slices.ContainsFunc(p.accounts(), func(name string) bool { return name == s.ServiceAccountName }) {
		p.bad("%s: service account %q is not there", at, s.ServiceAccountName)
	}
	if s.EnableServiceLinks == nil || *s.EnableServiceLinks {
		p.bad("%s: enableServiceLinks would give it SHOP_ variables that are no settings", at)
	}
	c := s.SecurityContext
	if c == nil || c.RunAsNonRoot == nil || !*c.RunAsNonRoot || c.RunAsUser == nil || *c.RunAsUser == 0 {
		p.bad("%s: does not say runAsNonRoot and a runAsUser", at)
	}
	if c == nil || c.SeccompProfile == nil || c.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		p.bad("%s: seccompProfile is not RuntimeDefault", at)
	}
	if s.HostNetwork || s.HostPID || s.HostIPC {
		p.bad("%s: uses a namespace of the host", at)
	}
	ports := map[string]int32{}
	for _, c := range s.Containers {
		for _, port := range c.Ports {
			ports[port.Name] = port.ContainerPort
		}
	}
	for _, s := range p.Services { // a headless Service has no address that could translate ports
		for _, port := range s.Spec.Ports {
			if labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(t.Labels)) && s.Spec.ClusterIP == corev1.ClusterIPNone && ports[port.TargetPort.StrVal] != port.Port {
				p.bad("%s: listens on %d for %s, and headless Service %s says %d", at, ports[port.TargetPort.StrVal], port.Name, s.Name, port.Port)
			}
		}
	}
	volumes := map[string]bool{}
	for _, v := range s.Volumes {
		volumes[v.Name] = true
		if v.ConfigMap != nil && v.ConfigMap.Name != p.config {
			p.bad("%s: mounts ConfigMap %s, but the settings are in %s", at, v.ConfigMap.Name, p.config)
		}
		if v.HostPath != nil {
			p.bad("%s: mounts a path of the host", at)
		}
	}
	for _, c := range s.Containers {
		p.container(at+" container "+c.Name, c)
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] {
				p.bad("%s: mounts volume %s, which is not there", at, m.Name)
			}
		}
	}
}

// comesFirst: a release applies what bears the Job's phase before all else, so what the Job needs must bear it too.
func (p *policy) comesFirst(j *batchv1.Job) {
	const phase = "banyan.shop/phase"
	needs := map[string]metav1.Object{}
	for _, a := range p.Accounts {
		needs["ServiceAccount "+a.Name] = a
	}
	for _, c := range p.ConfigMaps {
		needs["ConfigMap "+c.Name] = c
	}
	for _, s := range p.Secrets {
		needs["Secret "+s.Name] = s
	}
	for _, n := range p.NetworkPolicies {
		needs["NetworkPolicy "+n.Name] = n
	}
	for name, o := range needs {
		if j.Labels[phase] == "" || o.GetLabels()[phase] != j.Labels[phase] {
			p.bad("%s: is not of the phase %q, which Job %s needs it in", name, j.Labels[phase], j.Name)
		}
	}
}

func (p *policy) accounts() (names []string) {
	for _, a := range p.Accounts {
		names = append(names, a.Name)
	}
	return names
}

func (p *policy) container(at string, c corev1.Container) {
	if _, tag, ok := strings.Cut(c.Image, ":"); !ok || tag == "latest" {
		p.bad("%s: image %s has no version", at, c.Image)
	}
	if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
		p.bad("%s: wants requests of cpu and memory and a limit of memory", at)
	}
	x := c.SecurityContext
	switch {
	case x == nil || x.ReadOnlyRootFilesystem == nil || !*x.ReadOnlyRootFilesystem:
		p.bad("%s: its root file system can be written to", at)
	case x.AllowPrivilegeEscalation == nil || *x.AllowPrivilegeEscalation:
		p.bad("%s: may gain privileges", at)
	case x.Capabilities == nil || !slices.Equal(x.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(x.Capabilities.Add) > 0:
		p.bad("%s: does not drop all capabilities", at)
	}
	for _, from := range c.EnvFrom {
		if from.SecretRef == nil || !slices.ContainsFunc(p.Secrets, func(s *corev1.Secret) bool { return s.Name == from.SecretRef.Name }) {
			p.bad("%s: its environment comes from a Secret that is not there: %+v", at, from.SecretRef)
		}
	}
}

// serves is what a pod that customers wait for must be beside.
func (p *policy) serves(at string, s corev1.PodSpec) {
	c := s.Containers[0]
	probe := func(what string, probe *corev1.Probe, path string) {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Port != intstr.FromString("http") {
			p.bad("%s: its %s probe does not ask %s on http", at, what, path)
		}
	}
	probe("startup", c.StartupProbe, "/healthz")
	probe("liveness", c.LivenessProbe, "/healthz")
	probe("readiness", c.ReadinessProbe, "/readyz")
	delay, err1 := time.ParseDuration(p.settings.Drain.Delay)
	timeout, err2 := time.ParseDuration(p.settings.Drain.Timeout)
	if err := errors.Join(err1, err2); err != nil {
		p.bad("shop.yaml: drain: %v", err)
		return
	}
	if s.TerminationGracePeriodSeconds == nil || time.Duration(*s.TerminationGracePeriodSeconds)*time.Second <= delay+timeout+closing {
		p.bad("%s: terminationGracePeriodSeconds must be above drain.delay + drain.timeout + %s", at, closing)
	}
	if r := c.ReadinessProbe; r != nil && time.Duration(r.PeriodSeconds*r.FailureThreshold)*time.Second >= delay {
		p.bad("%s: the readiness probe needs %d s to see that a pod drains, and drain.delay is %s", at, r.PeriodSeconds*r.FailureThreshold, delay)
	}
	for _, t := range s.TopologySpreadConstraints {
		if t.LabelSelector == nil || len(t.LabelSelector.MatchLabels) < 2 {
			p.bad("%s: spreads over %s pods that are not its own", at, t.TopologyKey)
		}
	}
	if len(s.TopologySpreadConstraints) == 0 {
		p.bad("%s: its pods may all land on one node", at)
	}
}

// pods are the labels of all pods there will be.
func (p *policy) pods() (all []labels.Set) {
	for _, d := range p.Deployments {
		all = append(all, d.Spec.Template.Labels)
	}
	for _, j := range p.Jobs {
		all = append(all, j.Spec.Template.Labels)
	}
	return all
}

func (p *policy) selects(s labels.Selector) (n int) {
	for _, l := range p.pods() {
		if s.Matches(l) {
			n++
		}
	}
	return n
}

func (p *policy) selector(at string, s *metav1.LabelSelector) labels.Selector {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		p.bad("%s: %v", at, err)
		return labels.Nothing()
	}
	return selector
}

// services each select the pods of one Deployment.
func (p *policy) services() {
	for _, s := range p.Services {
		if n := p.selects(labels.SelectorFromSet(s.Spec.Selector)); len(s.Spec.Selector) == 0 || n != 1 {
			p.bad("Service %s: selects the pods of %d Deployments, want 1", s.Name, n)
		}
		for _, port := range s.Spec.Ports {
			if port.TargetPort.Type != intstr.String {
				p.bad("Service %s: names its target port by number", s.Name)
			}
		}
	}
}

// scaling: each Deployment has one scaler and one budget, and leaves replicas to the scaler.
func (p *policy) scaling() {
	for _, d := range p.Deployments {
		own := labels.Set(d.Spec.Template.Labels)
		if !p.selector("Deployment "+d.Name, d.Spec.Selector).Matches(own) || p.selects(p.selector("", d.Spec.Selector)) != 1 {
			p.bad("Deployment %s: its selector is not for its pods alone", d.Name)
		}
		if d.Spec.Replicas != nil {
			p.bad("Deployment %s: says replicas, which each apply would take back from the scaler", d.Name)
		}
		scalers, budgets := 0, 0
		for _, s := range p.Scalers {
			if r := s.Spec.ScaleTargetRef; r.Kind == "Deployment" && r.APIVersion == "apps/v1" && r.Name == d.Name {
				scalers++
			}
		}
		for _, b := range p.Budgets {
			if p.selector("PodDisruptionBudget "+b.Name, b.Spec.Selector).Matches(own) {
				budgets++
			}
		}
		if scalers != 1 || budgets != 1 {
			p.bad("Deployment %s: has %d HorizontalPodAutoscalers and %d PodDisruptionBudgets, want 1 of each", d.Name, scalers, budgets)
		}
	}
	if len(p.Scalers) != len(p.Deployments) || len(p.Budgets) != len(p.Deployments) {
		p.bad("%d HorizontalPodAutoscalers and %d PodDisruptionBudgets for %d Deployments", len(p.Scalers), len(p.Budgets), len(p.Deployments))
	}
	for _, s := range p.Scalers {
		if s.Spec.MinReplicas == nil || *s.Spec.MinReplicas < 2 {
			p.bad("HorizontalPodAutoscaler %s: one pod is none while it is replaced", s.Name)
		}
	}
}

// network: everything is denied, then every policy opens something for pods that are there; the public port is open to the
// outside on the gateway alone.
func (p *policy) network() {
	denied := false
	for _, n := range p.NetworkPolicies {
		s, at := n.Spec, "NetworkPolicy "+n.Name
		selector := p.selector(at, &s.PodSelector)
		if p.selects(selector) == 0 {
			p.bad("%s: selects no pod", at)
		}
		if len(s.PolicyTypes) == 0 {
			p.bad("%s: says no policyTypes", at)
		}
		if selector.Empty() && len(s.Ingress) == 0 && len(s.Egress) == 0 && len(s.PolicyTypes) == 2 {
			denied = true
		}
		for _, in := range s.Ingress {
			p.ingress(at, selector, in)
		}
	}
	if !denied {
		p.bad("NetworkPolicy: none denies what the others do not allow")
	}
}

func (p *policy) ingress(at string, selector labels.Selector, in networkingv1.NetworkPolicyIngressRule) {
	if len(in.Ports) == 0 || len(in.From) == 0 {
		p.bad("%s: lets everybody in, or to every port", at)
	}
	outside := false
	for _, from := range in.From {
		outside = outside || from.IPBlock != nil || from.NamespaceSelector != nil
		if from.PodSelector != nil && p.selects(p.selector(at, from.PodSelector)) == 0 {
			p.bad("%s: lets in pods that are not there", at)
		}
	}
	for _, port := range in.Ports {
		if port.Port == nil || port.Port.Type != intstr.String {
			p.bad("%s: names its port by number", at)
			continue
		}
		switch name := port.Port.StrVal; {
		case outside && name == "rpc":
			p.bad("%s: lets others than the shop call its modules", at)
		case outside && name == "http":
			for _, l := range p.pods() {
				if selector.Matches(l) && l["banyan.shop/gateway"] != "true" {
					p.bad("%s: lets customers past the gateway", at)
				}
			}
		case !outside && name == "ops":
			p.bad("%s: lets pods of the shop read each other's memory", at)
		}
	}
}
