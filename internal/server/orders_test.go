package server

import (
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// needs runs a command that succeeds where a program can run an example; see program.
func needs(t *testing.T, what string, command ...string) {
	t.Helper()
	if exec.Command(command[0], command[1:]...).Run() == nil {
		return
	}
	how := what + " is not installed: examples/needs says how it is"
	if os.Getenv("MEANWHILE_CI") != "" {
		t.Fatal(how)
	}
	t.Skip(how)
}

// An order and its job exist both or neither, in each language. Go's example has its own test.
func TestOrdersOfOtherLanguages(t *testing.T) {
	if testing.Short() {
		t.Skip("runs PHP and Python")
	}
	t.Parallel()
	example, err := config.Load(config.Sources{File: "../../examples/orders/meanwhile.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	for name, language := range map[string]struct{ needs, command []string }{
		"Python": {[]string{"/usr/bin/python3", "-c", "import psycopg"}, []string{"/usr/bin/python3", "../../examples/orders/order.py"}},
		"PHP":    {[]string{"php", "-r", "exit((int) !extension_loaded('pdo_pgsql'));"}, []string{"php", "../../examples/orders/order.php"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			needs(t, "the driver of "+name+" for PostgreSQL", language.needs...)
			db := pgtest.Shared(t).Schema(t)
			s := serveOn(t, db.URL(), func(c *config.Config) { c.Queues = example.Queues })
			conn := db.Connect(t)
			if _, err := conn.Exec(t.Context(), "create table orders (id bigserial primary key, item text not null)"); err != nil {
				t.Fatal(err)
			}
			order := func(payment string) (string, error) {
				cmd := exec.Command(language.command[0], append(language.command[1:], "chair", payment)...)
				cmd.Env = append(os.Environ(), connectionVariables(t, db.URL())...)
				out, err := cmd.CombinedOutput()
				return strings.TrimSpace(string(out)), err
			}
			if out, err := order("unpaid"); err == nil || !strings.Contains(out, "the payment failed") {
				t.Errorf("%s, %v", out, err)
			}
			id, err := order("paid")
			if err != nil {
				t.Fatalf("%s, %v", id, err)
			}
			count := func(sql string) (n int) {
				if err := conn.QueryRow(t.Context(), "select count(*) from "+sql).Scan(&n); err != nil {
					t.Fatal(err)
				}
				return n
			}
			until(t, 0, func() int { return count("inbox") })
			s.ends(id, "succeeded")
			if status, result := s.text("GET", "/v1/jobs/"+id+"/result", ""); status != 200 || !strings.Contains(result, `a mail for the order {"order"`) {
				t.Errorf("%d %s", status, result)
			}
			if orders, jobs := count("orders"), count("ended"); orders != 1 || jobs != 1 {
				t.Errorf("there are %d orders and %d jobs", orders, jobs)
			}
		})
	}
}

// connectionVariables returns the variables for the programs of a database.
func connectionVariables(t *testing.T, database string) []string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	return []string{
		"PGHOST=" + u.Query().Get("host"), "PGPORT=" + u.Query().Get("port"), "PGUSER=" + u.User.Username(),
		"PGDATABASE=" + strings.TrimPrefix(u.Path, "/"),
	}
}
