// Package test verifies signatures of this server with the official packages of Standard Webhooks.
// It is a module of its own, because it installs them.
package test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/meanwhile-run/meanwhile/internal/webhook"
)

// delivery is what a receiver is given, and whether it must believe it.
type delivery struct {
	Name    string            `json:"name"`
	Secret  string            `json:"secret"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
	Good    bool              `json:"good"`
}

func deliveries() []delivery {
	const body = `{"type":"job.succeeded","timestamp":"2026-11-30T09:01:00.123Z","data":{"id":"job_06b8ttc7vhs7b7rqdk0ch5fbjr","result":"ü <&>"}}`
	const id = "job_06b8ttc7vhs7b7rqdk0ch5fbjr"
	old, current := webhook.NewSecret(), webhook.NewSecret()
	sign := func(at time.Time, secrets ...webhook.Secret) map[string]string {
		return map[string]string{
			webhook.HeaderID: id, webhook.HeaderTimestamp: strconv.FormatInt(at.Unix(), 10),
			webhook.HeaderSignature: webhook.Sign(secrets, id, at, []byte(body)),
		}
	}
	now := time.Now()
	return []delivery{
		{"one signature", current.Reveal(), sign(now, current), body, true},
		{"two signatures, the old secret", old.Reveal(), sign(now, current, old), body, true},
		{"two signatures, the new secret", current.Reveal(), sign(now, current, old), body, true},
		{"another secret", webhook.NewSecret().Reveal(), sign(now, current, old), body, false},
		{"another body", current.Reveal(), sign(now, current), body + " ", false},
		{"an old delivery", current.Reveal(), sign(now.Add(-time.Hour), current), body, false},
		{"a delivery of the future", current.Reveal(), sign(now.Add(time.Hour), current), body, false},
	}
}

// check compares the verdicts of a library with what they must be.
func check(t *testing.T, verdicts []bool) {
	t.Helper()
	all := deliveries()
	if len(verdicts) != len(all) {
		t.Fatalf("%d verdicts for %d deliveries", len(verdicts), len(all))
	}
	for i, d := range all {
		if verdicts[i] != d.Good {
			t.Errorf("%s: the library says %v", d.Name, verdicts[i])
		}
	}
}

func TestGo(t *testing.T) {
	t.Parallel()
	var verdicts []bool
	for _, d := range deliveries() {
		library, err := standardwebhooks.NewWebhook(d.Secret)
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{}
		for name, value := range d.Headers {
			h.Set(name, value)
		}
		verdicts = append(verdicts, library.Verify([]byte(d.Body), h) == nil)
		// Our own receiver agrees.
		if s, err := webhook.ParseSecret(d.Secret); err != nil || (webhook.Verify(s, h, []byte(d.Body), time.Now()) == nil) != d.Good {
			t.Errorf("%s: we disagree (%v)", d.Name, err)
		}
	}
	check(t, verdicts)
}

// TestVectorOfTheLibrary compares a signature that the library makes with ours.
func TestVectorOfTheLibrary(t *testing.T) {
	t.Parallel()
	s, at, body := webhook.NewSecret(), time.Unix(1_700_000_000, 0), []byte(`{"a":1}`)
	library, err := standardwebhooks.NewWebhook(s.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	want, err := library.Sign("job_1", at, body)
	if got := webhook.Sign([]webhook.Secret{s}, "job_1", at, body); err != nil || got != want {
		t.Errorf("the signature is %s, the library's is %s, %v", got, want, err)
	}
}

// run runs a command in a directory. Without a network the test is skipped.
func run(t *testing.T, dir string, input []byte, command ...string) []byte {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(input)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err == nil {
		return out
	}
	if os.Getenv("MEANWHILE_CI") == "" && input == nil {
		t.Skipf("%q: %v: %s", command, err, &said)
	}
	t.Fatalf("%q: %v: %s%s", command, err, out, &said)
	return nil
}

// verify gives the deliveries to a program, and checks its verdicts.
func verify(t *testing.T, dir string, command ...string) {
	t.Helper()
	input, err := json.Marshal(deliveries())
	if err != nil {
		t.Fatal(err)
	}
	var verdicts []bool
	if out := run(t, dir, input, command...); json.Unmarshal(out, &verdicts) != nil {
		t.Fatalf("it printed %s", out)
	}
	check(t, verdicts)
}

func script(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	run(t, dir, nil, "npm", "install", "--no-audit", "--no-fund", "--silent", "standardwebhooks@1.1.1")
	verify(t, dir, "node", script(t, dir, "verify.mjs", `
import { Webhook } from "standardwebhooks";
const all = JSON.parse(Buffer.concat(await process.stdin.toArray()));
console.log(JSON.stringify(all.map(({ secret, headers, body }) => {
  try { new Webhook(secret).verify(body, headers); return true; } catch { return false; }
})));
`))
}

func TestPython(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	run(t, dir, nil, "python3", "-m", "venv", "venv")
	python := filepath.Join(dir, "venv/bin/python")
	run(t, dir, nil, python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "standardwebhooks==1.1.0")
	verify(t, dir, python, script(t, dir, "verify.py", `
import json, sys
from standardwebhooks import Webhook
def good(d):
    try:
        Webhook(d["secret"]).verify(d["body"], d["headers"])
        return True
    except Exception:
        return False
print(json.dumps([good(d) for d in json.load(sys.stdin)]))
`))
}
