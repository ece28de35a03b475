package deploy

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// project parses a file as Compose does: by its schema, and with a check that what it names exists.
func project(t *testing.T, file string) *types.Project {
	t.Helper()
	path, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir: filepath.Dir(path), ConfigFiles: []types.ConfigFile{{Filename: path}}, Environment: types.Mapping{},
	}, func(o *loader.Options) { o.SetProjectName("test", false) })
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestComposeFilesAreValid(t *testing.T) {
	for file, services := range map[string][]string{
		"../compose.yaml":          {"meanwhile", "prometheus"},
		"../compose/replicas.yaml": {"database", "meanwhile-1", "meanwhile-2", "proxy"},
	} {
		names := project(t, file).ServiceNames()
		if slices.Sort(names); !slices.Equal(names, services) {
			t.Errorf("%s has the services %v", file, names)
		}
	}
}

func TestReplicasShareDatabaseAndNothingElse(t *testing.T) {
	p := project(t, "../compose/replicas.yaml")
	one, two := p.Services["meanwhile-1"], p.Services["meanwhile-2"]
	for _, s := range []types.ServiceConfig{one, two} {
		if file := s.Environment["MEANWHILE_DATABASE_FILE"]; file == nil || *file != "/run/secrets/"+s.Secrets[0].Source {
			t.Errorf("%s reads the URL of its database elsewhere than from its secret", s.Name)
		}
		// The grace, five seconds for requests and three for spans.
		if time.Duration(*s.StopGracePeriod) < 33*time.Second {
			t.Errorf("%s is killed after %v", s.Name, s.StopGracePeriod)
		}
		if len(s.Ports) != 0 {
			t.Errorf("%s can be reached past the proxy", s.Name)
		}
		if proxy := p.Services["proxy"].Networks["inside"].Ipv4Address; *s.Environment["MEANWHILE_TRUSTED_PROXIES"] != proxy {
			t.Errorf("%s does not believe the proxy at %s", s.Name, proxy)
		}
	}
	if a, b := one.Volumes[0], two.Volumes[0]; a.Target != "/data" || b.Target != "/data" || a.Source == b.Source {
		t.Errorf("the servers share the directory %v", a)
	}
	for _, port := range p.Services["proxy"].Ports {
		if port.HostIP != "127.0.0.1" {
			t.Errorf("without API keys, everyone reaches %v", port)
		}
	}
}

// nginx has what docs/behind-a-proxy.md says, and both servers behind it.
func TestProxyOfReplicasIsTheDocumentedOne(t *testing.T) {
	page, err := os.ReadFile("../../docs/behind-a-proxy.md")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../compose/nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	words := regexp.MustCompile(`\s+`)
	ours := words.ReplaceAllString(string(text), " ")
	_, block, _ := strings.Cut(string(page), "```nginx\n")
	block, _, _ = strings.Cut(block, "```")
	before, _, _ := strings.Cut(block, "# For browsers")
	documented := 0
	for _, line := range regexp.MustCompile(`(?m)^\s*(proxy_[^;]*;|log_format[^;]*;|map [^{]*\{)`).FindAllStringSubmatch(before, -1) {
		documented++
		if want := words.ReplaceAllString(line[1], " "); !strings.Contains(ours, want) {
			t.Errorf("nginx.conf lacks %s", want)
		}
	}
	if documented < 10 {
		t.Errorf("the page has only %d settings", documented)
	}
	for _, server := range []string{"server meanwhile-1:8080", "server meanwhile-2:8080", "location = /metrics { return 404; }", "location /debug/ { return 404; }"} {
		if !strings.Contains(ours, server) {
			t.Errorf("nginx.conf lacks %s", server)
		}
	}
}
