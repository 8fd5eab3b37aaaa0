package check

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/kustomize/kyaml/filesys"
)

var onDisk = filesys.MakeFsOnDisk()

func overlays(t *testing.T) []string {
	t.Helper()
	dirs, err := filepath.Glob("../kubernetes/overlays/*")
	if err != nil || len(dirs) != 3 {
		t.Fatalf("overlays: %v, %v", dirs, err)
	}
	return dirs
}

func TestOverlays(t *testing.T) {
	t.Parallel()
	for _, dir := range overlays(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			o, err := Build(onDisk, dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := o.Check(); err != nil {
				t.Error(err)
			}
			t.Logf("%d objects, %d processes", len(o.Objects), len(o.Deployments))
		})
	}
}

// TestEveryProcessIsUsed: an instance that no overlay names is checked by nobody.
func TestEveryProcessIsUsed(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for _, dir := range overlays(t) {
		o, err := Build(onDisk, dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range o.Deployments {
			used[d.Spec.Template.Labels["app.kubernetes.io/component"]] = true
		}
	}
	all, err := os.ReadDir("../kubernetes/processes")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if !used[d.Name()] {
			t.Errorf("no overlay uses processes/%s", d.Name())
		}
	}
}

// TestBrokenManifests: each of these would be accepted by a YAML parser, and most by a cluster.
func TestBrokenManifests(t *testing.T) {
	t.Parallel()
	const deployment, services, scaling = "process/deployment.yaml", "process/services.yaml", "process/scaling.yaml"
	for _, b := range []struct{ file, old, new, want string }{
		{deployment, "revisionHistoryLimit", "revisionHistoryLimits", "unknown field"},
		{deployment, "periodSeconds: 10", "periodSeconds: ten", "cannot unmarshal"},
		{deployment, "kind: Deployment", "kind: Rollout", "no kind"},
		{deployment, "runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot"},
		{deployment, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "can be written to"},
		{deployment, "drop: [ALL]", "drop: [NET_RAW]", "drop all capabilities"},
		{deployment, "type: RuntimeDefault", "type: Unconfined", "seccompProfile"},
		{deployment, "limits: {memory: 512Mi}", "limits: {}", "limit of memory"},
		{deployment, "path: /readyz", "path: /healthz", "readiness probe"},
		{deployment, "livenessProbe: {httpGet: {path: /healthz, port: http}", "livenessProbe: {tcpSocket: {port: http}", "liveness probe"},
		{deployment, "terminationGracePeriodSeconds: 45", "terminationGracePeriodSeconds: 30", "terminationGracePeriodSeconds"},
		{deployment, "enableServiceLinks: false", "enableServiceLinks: true", "enableServiceLinks"},
		{deployment, "automountServiceAccountToken: false", "automountServiceAccountToken: true", "mounts a token"},
		{deployment, "name: shop-database", "name: shop-db", "Secret that is not there"},
		{deployment, "containerPort: 8081", "containerPort: 9081", "headless"},
		{deployment, "serviceAccountName: shop", "serviceAccountName: default", "service account"},
		{services, "clusterIP: None", "clusterIP: \"\"", "not headless"},
		{scaling, "kind: Deployment, name: shop", "kind: Deployment, name: shopp", "HorizontalPodAutoscalers"},
		{scaling, "minReplicas: 2", "minReplicas: 1", "one pod is none"},
		{"base/network.yaml", "podSelector: {}\n  policyTypes: [Ingress, Egress]", "podSelector: {}\n  policyTypes: [Ingress]", "none denies"},
		{"base/network.yaml", "ports: [{port: ops}]", "ports: [{port: rpc}]", "others than the shop"},
		{"base/network.yaml", "values: [main, notifications, payments, shipping]", "values: [nobody]", "selects no pod"},
		{"base/secrets.yaml", "postgres://REPLACE@", "postgres://shop:secret@", "no placeholder"},
		{"base/secrets.yaml", "SHOP_SECRET: REPLACE", "SHOP_SECRET: REPLACE-this-with-something-very-long", "for a secret"},
		{"base/gateway.yaml", "banyan.shop/gateway: \"true\"", "banyan.shop/edge: \"true\"", "of 0 Deployments"},
		{"overlays/one-out/database.yaml", "phase: migrate", "phase: later", "is not of the phase"},
		{"overlays/one-out/shop.yaml", "delay: 10s", "delay: 40s", "terminationGracePeriodSeconds"},
		{"overlays/one-out/shop.yaml", "payments: {http", "payment: {http", "no process \"payments\""},
		{"overlays/one-out/shop.yaml", "payments-rpc", "payment-rpc", "is not there"},
		{"overlays/one-out/kustomization.yaml", "newTag: v0.0.0-dev", "newTag: latest", "no version"},
	} {
		t.Run(b.want+" "+b.new, func(t *testing.T) {
			t.Parallel()
			disk := filesys.MakeFsInMemory()
			root := os.DirFS("../kubernetes")
			changed := false
			err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				text, err := fs.ReadFile(root, path)
				if err != nil {
					return err
				}
				if path == b.file {
					changed = strings.Contains(string(text), b.old)
					text = []byte(strings.Replace(string(text), b.old, b.new, 1))
				}
				return disk.WriteFile("/k/"+path, text)
			})
			if err != nil || !changed {
				t.Fatalf("%s has no %q: %v", b.file, b.old, err)
			}
			o, err := Build(disk, "/k/overlays/one-out")
			if err == nil {
				err = o.Check()
			}
			if err == nil || !strings.Contains(err.Error(), b.want) {
				t.Errorf("got %v, want a word of %q", err, b.want)
			}
		})
	}
}
