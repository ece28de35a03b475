package server

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/telemetry"
)

// metric is a metric of a server, without its values.
type metric struct {
	kind   string
	labels map[string]map[string]bool // by name, with their values
}

// exposed returns the metrics of a server that has used each feature once.
func exposed(t *testing.T) map[string]metric {
	t.Helper()
	s := serve(t, func(c *config.Config) {
		q := c.Queues["sim"]
		q.MaxBytes = 1 << 30
		c.Queues["sim"] = q
	})
	s.call("POST", "/v1/jobs", `{"queue":"sim","input":{"tokens":3}}`, "Prefer", "wait=60")
	s.call("POST", "/v1/jobs", `{"queue":"nowhere","input":1}`)
	_, text := s.text("GET", "/metrics", "")
	s.quit()
	text += databaseMetrics()
	found := map[string]metric{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(text, -1) {
		found[m[1]] = metric{m[2], map[string]map[string]bool{}}
	}
	for _, line := range regexp.MustCompile(`(?m)^([a-z_]+)(\{.*\})? \S+$`).FindAllStringSubmatch(text, -1) {
		m := found[base(line[1], found)]
		for _, pair := range labelPairs.FindAllStringSubmatch(line[2], -1) {
			if m.labels[pair[1]] == nil {
				m.labels[pair[1]] = map[string]bool{}
			}
			m.labels[pair[1]][pair[3]] = true
		}
	}
	return found
}

// databaseMetrics returns a scrape of the metrics of a database. That a server with one shows them
// is tested in TestMetricsOfServerOnPostgres.
func databaseMetrics() string {
	m := telemetry.NewMetrics()
	m.AddSources(telemetry.Sources{Inbox: func(context.Context) (n telemetry.InboxStats, err error) { return n, nil }, Database: func(context.Context) *telemetry.DatabaseState {
		f := &telemetry.DatabaseFacts{}
		for _, name := range []string{"applied", "jobs", "moves", "output"} {
			f.Tables = append(f.Tables, telemetry.TableState{Name: name, Vacuumed: time.Now()})
		}
		return &telemetry.DatabaseState{Facts: f, BusUp: true, Pools: []telemetry.PoolState{{Name: "reads"}, {Name: "files"}}}
	}})
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

var labelPairs = regexp.MustCompile(`([a-z_]+)(=~|!~|!=|=)"([^"]*)"`)

// base returns the name of a sample's metric: a histogram has samples with several names.
func base(sample string, all map[string]metric) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if name, ok := strings.CutSuffix(sample, suffix); ok && all[name].kind == "histogram" {
			return name
		}
	}
	return sample
}

// docs/operations.md has exactly our metrics, with their types and labels.
func TestDocumentationHasEveryMetric(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	described := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(meanwhile_[a-z_]+)` \\| (\\w+) \\| ([^|]+) \\|").FindAllStringSubmatch(string(page), -1) {
		described[row[1]] = row[2] + " " + row[3]
	}
	is := map[string]string{}
	for name, m := range exposed(t) {
		if !strings.HasPrefix(name, "meanwhile_") {
			continue
		}
		labels := slices.Sorted(maps.Keys(m.labels))
		labels = slices.DeleteFunc(labels, func(l string) bool { return l == "le" })
		is[name] = m.kind + " –"
		if len(labels) > 0 {
			is[name] = m.kind + " `" + strings.Join(labels, "`, `") + "`"
		}
	}
	for name, row := range described {
		kind, labels, _ := strings.Cut(row, " ")
		words := strings.Split(labels, ", ")
		slices.Sort(words)
		described[name] = kind + " " + strings.Join(words, ", ")
	}
	if !maps.Equal(is, described) {
		for name := range is {
			if is[name] != described[name] {
				t.Errorf("%s is a %s; the manual says %q", name, is[name], described[name])
			}
		}
		for name := range described {
			if is[name] == "" {
				t.Errorf("the manual has %s, which no server shows", name)
			}
		}
	}
}

// expressions checks PromQL expressions against the metrics of a server.
type expressions struct {
	known map[string]metric
}

var (
	quoted    = regexp.MustCompile(`"[^"]*"`)
	ranges    = regexp.MustCompile(`\[[^\]]*\]`)
	groupings = regexp.MustCompile(`\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
	selectors = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)\s*(\{[^}]*\})?(\s*\()?`)
	operators = []string{"and", "or", "unless", "bool", "offset"}
	functions = []string{"sum", "max", "min", "rate", "increase", "changes", "histogram_quantile", "predict_linear"}
	added     = []string{"instance", "job"} // to every metric, by Prometheus
)

// check returns the fault of an expression, or nil.
func (x expressions) check(expr string) error {
	bare := quoted.ReplaceAllString(expr, "")
	for _, pair := range []string{"()", "{}", "[]"} {
		if strings.Count(bare, pair[:1]) != strings.Count(bare, pair[1:]) {
			return fmt.Errorf("%s does not match in %s", pair, expr)
		}
	}
	labels := map[string]bool{}
	rest := ranges.ReplaceAllString(expr, "")
	for _, g := range groupings.FindAllStringSubmatch(rest, -1) {
		for l := range strings.SplitSeq(g[2], ",") {
			labels[strings.TrimSpace(l)] = true
		}
	}
	rest = groupings.ReplaceAllString(rest, " ")
	asked := 0
	for _, s := range selectors.FindAllStringSubmatch(rest, -1) {
		switch {
		case slices.Contains(operators, s[1]):
		case s[3] != "" && slices.Contains(functions, s[1]):
		default:
			asked++
			if err := x.selector(s[1], s[2], labels); err != nil {
				return fmt.Errorf("%w, in %s", err, expr)
			}
		}
	}
	if asked == 0 {
		return fmt.Errorf("nothing is asked for in %s", expr)
	}
	return nil
}

// selector checks one metric, the labels that select it, and the labels that group its
// expression.
func (x expressions) selector(name, matchers string, grouped map[string]bool) error {
	if name == "up" {
		return nil
	}
	m, known := x.known[base(name, x.known)]
	if !known {
		return fmt.Errorf("no server shows %s", name)
	}
	if m.kind == "histogram" && base(name, x.known) == name {
		return fmt.Errorf("%s is a histogram: ask for its _bucket, _sum or _count", name)
	}
	for l := range grouped {
		if m.labels[l] == nil && !slices.Contains(added, l) {
			return fmt.Errorf("%s has no label %s to be grouped by", name, l)
		}
	}
	for _, pair := range labelPairs.FindAllStringSubmatch(matchers, -1) {
		if slices.Contains(added, pair[1]) {
			continue
		}
		if m.labels[pair[1]] == nil {
			return fmt.Errorf("%s has no label %s", name, pair[1])
		}
		for value := range strings.SplitSeq(pair[3], "|") {
			if fixed[pair[1]] && !m.labels[pair[1]][value] {
				return fmt.Errorf("%s never has %s %q", name, pair[1], value)
			}
		}
	}
	return nil
}

// fixed are the labels with values that do not depend on the server.
var fixed = map[string]bool{"state": true, "outcome": true, "lane": true, "reason": true, "table": true, "pool": true}

func TestWrongExpressionsAreFound(t *testing.T) {
	t.Parallel()
	x := expressions{known: map[string]metric{
		"jobs":    {"gauge", map[string]map[string]bool{"queue": {"chat": true}, "state": {"queued": true}}},
		"seconds": {"histogram", map[string]map[string]bool{"le": {"1": true}}},
	}}
	for expr, right := range map[string]bool{
		`sum by (queue) (jobs{state="queued"}) > 1`:                            true,
		`histogram_quantile(0.9, sum by (le) (rate(seconds_bucket[5m]))) > .5`: true,
		`jobs{instance="a"} and jobs == 0`:                                     true,
		`up == 0`:                                                              true,
		`jobz`:                                                                 false,
		`summ(jobs)`:                                                           false,
		`sum(jobs`:                                                             false,
		`jobs{state="parked"}`:                                                 false,
		`jobs{state=~"queued|parked"}`:                                         false,
		`jobs{lane="a"}`:                                                       false,
		`sum by (lane) (jobs)`:                                                 false,
		`rate(seconds[5m])`:                                                    false,
		`1 > 0`:                                                                false,
	} {
		if err := x.check(expr); (err == nil) != right {
			t.Errorf("%s: %v", expr, err)
		}
	}
}

func TestAlertsUseExistingMetrics(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	dec := yaml.NewDecoder(strings.NewReader(string(text)))
	dec.KnownFields(true)
	if err := dec.Decode(&file); err != nil {
		t.Fatal(err)
	}
	x := expressions{known: exposed(t)}
	names := map[string]bool{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" || names[r.Alert] {
				t.Errorf("the name %q is empty, or there twice", r.Alert)
			}
			names[r.Alert] = true
			if err := x.check(r.Expr); err != nil {
				t.Errorf("%s: %v", r.Alert, err)
			}
			if r.For != "" && !regexp.MustCompile(`^\d+[smh]$`).MatchString(r.For) {
				t.Errorf("%s: for %q", r.Alert, r.For)
			}
			if s := r.Labels["severity"]; s != "warning" && s != "critical" {
				t.Errorf("%s: the severity is %q", r.Alert, s)
			}
			if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s does not say what is wrong and what to do", r.Alert)
			}
		}
	}
	if len(names) < 10 {
		t.Errorf("there are only the alerts %v", names)
	}
}

// box is the place of a panel on a dashboard with 24 columns.
type box struct{ X, Y, W, H int }

func (b box) overlaps(o box) bool {
	return b.X < o.X+o.W && o.X < b.X+b.W && b.Y < o.Y+o.H && o.Y < b.Y+b.H
}

func TestDashboardUsesExistingMetrics(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/grafana/meanwhile.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		UID, Title string
		Templating struct {
			List []struct{ Name, Type, Query string }
		}
		Panels []struct {
			ID         int
			Type       string
			Title      string
			GridPos    box
			Datasource struct{ UID string }
			Targets    []struct{ RefID, Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	x := expressions{known: exposed(t)}
	variables := map[string]bool{"__rate_interval": true}
	for _, v := range board.Templating.List {
		variables[v.Name] = true
		if m := regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`).FindStringSubmatch(v.Query); v.Type == "query" {
			if m == nil {
				t.Errorf("the variable %s asks for %q", v.Name, v.Query)
			} else if err := x.selector(m[1], "", map[string]bool{m[2]: true}); err != nil {
				t.Errorf("the variable %s: %v", v.Name, err)
			}
		}
	}
	ids := map[int]bool{}
	for i, p := range board.Panels {
		if p.ID == 0 || ids[p.ID] || p.Title == "" {
			t.Errorf("the panel %q has the id %d, which is none, or there twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		for _, q := range board.Panels[:i] {
			if p.GridPos.overlaps(q.GridPos) || p.GridPos.X+p.GridPos.W > 24 {
				t.Errorf("the panels %q and %q lie over each other, or the first over the edge", p.Title, q.Title)
			}
		}
		if p.Type == "row" {
			continue
		}
		if len(p.Targets) == 0 || p.Datasource.UID != "${datasource}" {
			t.Errorf("the panel %q asks nothing, or somebody else", p.Title)
		}
		for _, target := range p.Targets {
			if err := x.check(target.Expr); err != nil || target.RefID == "" {
				t.Errorf("the panel %q: %v", p.Title, err)
			}
			for _, v := range regexp.MustCompile(`\$(\w+)`).FindAllStringSubmatch(target.Expr, -1) {
				if !variables[v[1]] {
					t.Errorf("the panel %q uses $%s, which is no variable", p.Title, v[1])
				}
			}
		}
	}
	if board.UID == "" || board.Title == "" || len(board.Panels) < 10 {
		t.Errorf("the board %q (%s) has %d panels", board.Title, board.UID, len(board.Panels))
	}
}

// The server reads every setting of the image and the compose file.
func TestImageSetsExistingVariables(t *testing.T) {
	t.Parallel()
	var set []string
	for _, file := range []string{"Dockerfile", "compose.yaml", "meanwhile.service"} {
		text, err := os.ReadFile("../../deploy/" + file)
		if err != nil {
			t.Fatal(err)
		}
		var read any
		if err := yaml.Unmarshal(text, &read); err != nil && strings.HasSuffix(file, ".yaml") {
			t.Errorf("%s: %v", file, err)
		}
		for _, m := range regexp.MustCompile(`\b(MEANWHILE_[A-Z_]+)(=|: )(\S+)`).FindAllStringSubmatch(string(text), -1) {
			set = append(set, m[1]+"="+m[3])
		}
	}
	cfg, err := config.Load(config.Sources{Environ: set})
	if err != nil {
		t.Fatalf("%v: %v", set, err)
	}
	if cfg.Data != "/data" || !strings.HasSuffix(cfg.Listen, ":8080") || !cfg.Insecure || cfg.Log.Format != "json" || cfg.Metrics.Listen == "" || len(cfg.Proxies()) == 0 {
		t.Errorf("%v sets %+v", set, cfg)
	}
}

// docs/install.md shows the unit. The unit agrees with the server's defaults.
func TestUnitIsDocumented(t *testing.T) {
	t.Parallel()
	unit, err := os.ReadFile("../../deploy/meanwhile.service")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "```ini\n"+string(unit)+"```") {
		t.Error("docs/install.md does not show deploy/meanwhile.service as it is")
	}
	set := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)^([A-Za-z]+)=(.*)$`).FindAllStringSubmatch(string(unit), -1) {
		set[m[1]] = append(set[m[1]], m[2])
	}
	for name, value := range map[string]string{"Type": "notify", "RestartPreventExitStatus": "2", "UMask": "0077"} {
		if got := set[name]; len(got) != 1 || got[0] != value {
			t.Errorf("%s is %q, want %s", name, got, value)
		}
	}
	if len(set["SystemCallFilter"]) == 0 || len(set["WatchdogSec"]) == 0 {
		t.Error("the unit has no system-call filter or no watchdog")
	}
	if stop, err := time.ParseDuration(set["TimeoutStopSec"][0] + "s"); err != nil || stop < config.Default().ShutdownGrace+requestGrace+spanFlushTimeout {
		t.Errorf("systemd kills a stopping server after %v (%v)", stop, err)
	}
}

// docs/scaling.md shows the addition to the unit, which reads what the server reads.
func TestUnitWithDatabaseIsDocumented(t *testing.T) {
	t.Parallel()
	addition, err := os.ReadFile("../../deploy/meanwhile.service.d/database.conf")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/scaling.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "```ini\n"+string(addition)+"```") {
		t.Error("docs/scaling.md does not show deploy/meanwhile.service.d/database.conf as it is")
	}
	m := regexp.MustCompile(`(?m)^LoadCredential=(\w+):/etc/\S+\nEnvironment=(MEANWHILE_\w+)=%d/(\w+)$`).FindSubmatch(addition)
	if m == nil || string(m[1]) != string(m[3]) {
		t.Fatalf("the credential that is loaded is not the one that is read:\n%s", addition)
	}
	path := filepath.Join(t.TempDir(), "database")
	if err := os.WriteFile(path, []byte("postgres://db.example.com/meanwhile\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(config.Sources{Environ: []string{string(m[2]) + "=" + path}})
	if err != nil || cfg.Database != "postgres://db.example.com/meanwhile" {
		t.Errorf("the server reads %q, %v", cfg.Database, err)
	}
}

// The server knows every variable of the chart and of the compose file with a database.
func TestReplicasSetExistingVariables(t *testing.T) {
	t.Parallel()
	database := filepath.Join(t.TempDir(), "database")
	if err := os.WriteFile(database, []byte("postgres://db.example.com/meanwhile"), 0o600); err != nil {
		t.Fatal(err)
	}
	values := map[string]string{
		"MEANWHILE_DATABASE_FILE": database, "MEANWHILE_DATABASE_MIGRATE": "false", "MEANWHILE_DATABASE_POOLER": "true", "MEANWHILE_SHUTDOWN_GRACE_S": "26",
		"MEANWHILE_METRICS_LISTEN": "0.0.0.0:9100", "MEANWHILE_ALLOWED_HOSTS": "a.b,a.b.svc", "MEANWHILE_PUBLIC_URL": "https://jobs.example.com", "MEANWHILE_TRUSTED_PROXIES": "10.0.0.0/8",
	}
	for file, least := range map[string]int{"helm/meanwhile/templates/deployment.yaml": 8, "compose/replicas.yaml": 3} {
		text, err := os.ReadFile("../../deploy/" + file)
		if err != nil {
			t.Fatal(err)
		}
		var set []string
		for _, m := range regexp.MustCompile(`\b(MEANWHILE_[A-Z_]+)(?:, value)?: `).FindAllStringSubmatch(string(text), -1) {
			value, known := values[m[1]]
			if !known {
				t.Errorf("%s sets %s, which this test does not know", file, m[1])
			}
			set = append(set, m[1]+"="+value)
		}
		cfg, err := config.Load(config.Sources{Environ: set})
		if err != nil || len(set) < least || cfg.Database == "" || cfg.Metrics.Listen == "" || len(cfg.Proxies()) == 0 {
			t.Errorf("%s: %v sets %+v, %v", file, set, cfg, err)
		}
		if strings.HasPrefix(file, "helm") && (cfg.ShutdownGrace != 26*time.Second || cfg.DatabaseMigrate || !cfg.DatabasePooler || len(cfg.AllowedHosts) != 2 || cfg.PublicURL == "") {
			t.Errorf("%s: the server does not read all of %v: %+v", file, set, cfg)
		}
	}
}

// systemd accepts the unit.
func TestUnitIsValid(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze, which checks units, is not installed")
	}
	unit, err := os.ReadFile("../../deploy/meanwhile.service")
	if err != nil {
		t.Fatal(err)
	}
	// The program and its user need not exist here.
	text := strings.ReplaceAll(string(unit), "/usr/local/bin/meanwhile", os.Args[0])
	text = regexp.MustCompile(`(?m)^(User|Group)=.*$`).ReplaceAllString(text, "$1=root")
	path := filepath.Join(t.TempDir(), "meanwhile.service")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-analyze", "verify", path).CombinedOutput(); err != nil || strings.Contains(string(out), path) {
		t.Errorf("%v: %s", err, out)
	}
}
