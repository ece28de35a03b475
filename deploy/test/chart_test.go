package deploy

import (
	"maps"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

const chartDir = "../helm/meanwhile"

// objects are what the chart renders, by kind. Each is decoded strictly: an unknown field fails.
type objects struct {
	deployment *apps.Deployment
	config     *core.ConfigMap
	services   []*core.Service
	policy     *networking.NetworkPolicy
	budget     *policy.PodDisruptionBudget
	scaled     *scaledObject
	monitor    *monitoring.ServiceMonitor
}

type values = map[string]any

// everything turns on what is optional.
func everything() values {
	return values{
		"keda":                 values{"enabled": true},
		"serviceMonitor":       values{"enabled": true, "labels": values{"release": "prometheus"}},
		"publicURL":            "https://jobs.example.com",
		"allowedHosts":         []any{"jobs.example.com"},
		"trustedProxies":       []any{"10.0.0.0/8"},
		"imagePullSecrets":     []any{values{"name": "registry"}},
		"env":                  []any{values{"name": "MODEL_KEY", "valueFrom": values{"secretKeyRef": values{"name": "models", "key": "key"}}}},
		"config":               values{"queues": values{"chat": values{"concurrency": 64}}},
		"podAnnotations":       values{"example.com/a": "b"},
		"podLabels":            values{"team": "jobs"},
		"service":              values{"annotations": values{"example.com/c": "d"}},
		"nodeSelector":         values{"disk": "ssd"},
		"tolerations":          []any{values{"key": "jobs", "operator": "Exists"}},
		"affinity":             values{"nodeAffinity": values{}},
		"shutdownGraceSeconds": 60, "drainDelaySeconds": 20,
	}
}

// render renders the chart with values over its own.
func render(t *testing.T, release string, v values) *objects {
	t.Helper()
	chart, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	all, err := chartutil.ToRenderValues(chart, v, chartutil.ReleaseOptions{Name: release, Namespace: "work", Revision: 1, IsInstall: true}, chartutil.DefaultCapabilities)
	if err != nil {
		t.Fatal(err)
	}
	files, err := engine.Render(chart, all)
	if err != nil {
		t.Fatal(err)
	}
	o := &objects{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(name, ".yaml") {
			for doc := range strings.SplitSeq(files[name], "\n---\n") {
				o.decode(t, name, doc)
			}
		}
	}
	return o
}

func (o *objects) decode(t *testing.T, file, text string) {
	t.Helper()
	var head struct{ APIVersion, Kind string }
	if err := yaml.Unmarshal([]byte(text), &head); err != nil {
		t.Fatalf("%s: %v\n%s", file, err, text)
	}
	var into any
	switch head.APIVersion + " " + head.Kind {
	case " ": // nothing is rendered
		return
	case "apps/v1 Deployment":
		o.deployment = &apps.Deployment{}
		into = o.deployment
	case "v1 ConfigMap":
		o.config = &core.ConfigMap{}
		into = o.config
	case "v1 Service":
		o.services = append(o.services, &core.Service{})
		into = o.services[len(o.services)-1]
	case "networking.k8s.io/v1 NetworkPolicy":
		o.policy = &networking.NetworkPolicy{}
		into = o.policy
	case "policy/v1 PodDisruptionBudget":
		o.budget = &policy.PodDisruptionBudget{}
		into = o.budget
	case "keda.sh/v1alpha1 ScaledObject":
		o.scaled = &scaledObject{}
		into = o.scaled
	case "monitoring.coreos.com/v1 ServiceMonitor":
		o.monitor = &monitoring.ServiceMonitor{}
		into = o.monitor
	default:
		t.Fatalf("%s has the unexpected object %v", file, head)
	}
	if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
		t.Fatalf("%s: %v\n%s", file, err, text)
	}
}

func TestHelmAcceptsChart(t *testing.T) {
	for name, v := range map[string]values{"the default values": {}, "all options": everything()} {
		for _, m := range lint.All(chartDir, v, "work", true).Messages {
			if m.Severity > support.InfoSev { // an icon is only recommended
				t.Errorf("%s: %v", name, m)
			}
		}
	}
}

func TestChartStartsTwoServersOnOneDatabase(t *testing.T) {
	o := render(t, "meanwhile", values{})
	if o.scaled != nil || o.monitor != nil {
		t.Error("KEDA or a ServiceMonitor is asked for without being enabled")
	}
	d := o.deployment.Spec
	if *d.Replicas != 2 || d.Strategy.RollingUpdate.MaxUnavailable.IntValue() != 0 {
		t.Errorf("%d servers, strategy %v", *d.Replicas, d.Strategy)
	}
	pod := d.Template.Spec
	c := pod.Containers[0]
	env := map[string]string{}
	for _, e := range c.Env {
		env[e.Name] = e.Value
	}
	file := env["MEANWHILE_DATABASE_FILE"]
	mounted := ""
	for _, m := range c.VolumeMounts {
		for _, v := range pod.Volumes {
			if v.Name == m.Name && v.Secret != nil && v.Secret.SecretName == "meanwhile-database" && v.Secret.Items[0].Key == "url" {
				mounted = m.MountPath + "/" + v.Secret.Items[0].Path
			}
		}
	}
	if file == "" || file != mounted {
		t.Errorf("the server reads the URL of its database from %q, and the secret is at %q", file, mounted)
	}
	if env["MEANWHILE_ALLOWED_HOSTS"] != "meanwhile.work,meanwhile.work.svc" || env["MEANWHILE_METRICS_LISTEN"] != "0.0.0.0:9100" {
		t.Errorf("%v", env)
	}
	if *pod.EnableServiceLinks || *pod.AutomountServiceAccountToken {
		t.Error("a pod gets the addresses of services as variables, or a token of the cluster")
	}
	s := c.SecurityContext
	if !*pod.SecurityContext.RunAsNonRoot || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || !slices.Contains(s.Capabilities.Drop, "ALL") || pod.SecurityContext.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
		t.Error("the server has rights that it does not need")
	}
	if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
		t.Errorf("the resources are %v", c.Resources)
	}
}

// The server needs its grace, five seconds for requests and three for spans.
func TestPodIsNotKilledBeforeItsServerStops(t *testing.T) {
	for grace, v := range map[int64]values{25: {}, 60: everything()} {
		pod := render(t, "meanwhile", v).deployment.Spec.Template.Spec
		delay := pod.Containers[0].Lifecycle.PreStop.Sleep.Seconds
		if delay < 1 || *pod.TerminationGracePeriodSeconds < delay+grace+5+3 {
			t.Errorf("a pod is killed after %d s; it waits for %d, and its work for %d", *pod.TerminationGracePeriodSeconds, delay, grace)
		}
	}
}

func TestProbesAskTheServer(t *testing.T) {
	c := render(t, "meanwhile", values{}).deployment.Spec.Template.Spec.Containers[0]
	for what, p := range map[string]struct {
		probe *core.Probe
		path  string
	}{"ready": {c.ReadinessProbe, "/readyz"}, "alive": {c.LivenessProbe, "/healthz"}, "started": {c.StartupProbe, "/healthz"}} {
		if p.probe.HTTPGet.Path != p.path || !hasPort(c, p.probe.HTTPGet.Port.String(), 8080) {
			t.Errorf("%s: %v", what, p.probe.HTTPGet)
		}
	}
}

func hasPort(c core.Container, name string, number int32) bool {
	return slices.ContainsFunc(c.Ports, func(p core.ContainerPort) bool { return p.Name == name && p.ContainerPort == number })
}

// What selects pods or services selects those of the chart.
func TestSelectorsMatch(t *testing.T) {
	for _, release := range []string{"meanwhile", "jobs", strings.Repeat("long-", 10) + "xyz"} {
		o := render(t, release, everything())
		pod := o.deployment.Spec.Template
		c := pod.Spec.Containers[0]
		metrics := ""
		for what, s := range map[string]map[string]string{
			"deployment": o.deployment.Spec.Selector.MatchLabels, "budget": o.budget.Spec.Selector.MatchLabels,
			"policy": o.policy.Spec.PodSelector.MatchLabels, "spread": pod.Spec.TopologySpreadConstraints[0].LabelSelector.MatchLabels,
		} {
			if len(s) == 0 || !within(s, pod.Labels) {
				t.Errorf("%s: %v does not select %v", what, s, pod.Labels)
			}
		}
		for _, s := range o.services {
			if !within(s.Spec.Selector, pod.Labels) || len(s.Name) > 63 {
				t.Errorf("the service %s does not select the pods, or has too long a name", s.Name)
			}
			for _, p := range s.Spec.Ports {
				if !hasPort(c, p.TargetPort.String(), p.Port) {
					t.Errorf("the service %s has the port %v, which the pod lacks", s.Name, p)
				}
			}
			if within(o.monitor.Spec.Selector.MatchLabels, s.Labels) {
				metrics = s.Name
				if s.Spec.Ports[0].Name != o.monitor.Spec.Endpoints[0].Port {
					t.Errorf("the monitor reads the port %s", o.monitor.Spec.Endpoints[0].Port)
				}
			}
		}
		query := o.scaled.Spec.Triggers[0].Metadata["query"]
		if metrics == "" || query != `max(meanwhile_queue_servers_wanted{namespace="work", service="`+metrics+`"})` {
			t.Errorf("the monitor selects the service %q, and KEDA asks %s", metrics, query)
		}
		for _, rule := range o.policy.Spec.Ingress {
			if !hasPort(c, rule.Ports[0].Port.String(), 8080) && !hasPort(c, rule.Ports[0].Port.String(), 9100) || len(rule.From) == 0 {
				t.Errorf("the policy lets anyone in, or at a port that the pod lacks: %v", rule)
			}
		}
	}
}

func within(part, of map[string]string) bool {
	for k, v := range part {
		if of[k] != v {
			return false
		}
	}
	return true
}

func TestKEDAScalesTheDeployment(t *testing.T) {
	o := render(t, "meanwhile", everything())
	s := o.scaled.Spec
	if o.deployment.Spec.Replicas != nil {
		t.Error("an upgrade of the release would undo what KEDA has scaled")
	}
	if s.ScaleTargetRef.Name != o.deployment.Name || *s.MinReplicaCount < 2 || *s.MaxReplicaCount <= *s.MinReplicaCount {
		t.Errorf("%+v", s)
	}
	if tr := s.Triggers[0]; tr.Type != "prometheus" || tr.MetricType != "AverageValue" || tr.Metadata["threshold"] != "1" || tr.Metadata["serverAddress"] == "" {
		t.Errorf("%+v", tr)
	}
}

func TestConfigurationIsThatOfTheValues(t *testing.T) {
	o := render(t, "meanwhile", everything())
	var read struct {
		Queues map[string]struct{ Concurrency int }
	}
	if err := yaml.UnmarshalStrict([]byte(o.config.Data["meanwhile.yaml"]), &read); err != nil || read.Queues["chat"].Concurrency != 64 {
		t.Errorf("%v: %q", err, o.config.Data["meanwhile.yaml"])
	}
	other := everything()
	other["config"] = values{"queues": values{"chat": values{"concurrency": 65}}}
	const sum = "checksum/config"
	before, after := o.deployment.Spec.Template.Annotations[sum], render(t, "meanwhile", other).deployment.Spec.Template.Annotations[sum]
	if before == "" || before == after {
		t.Error("a new configuration does not restart the servers")
	}
}
