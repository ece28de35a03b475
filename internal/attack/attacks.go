package main

import (
	"fmt"
	"strings"
)

// statusBound is the bound of status reads beside an attack, in ms. It is for a busy machine.
const statusBound = 250

// grown measures the memory of the server and the status reads of others while do has made
// its attack.
func (t *target) grown(bound float64, do func() error) ([]measurement, error) {
	id, _, err := t.submit("sim", "")
	if err != nil {
		return nil, err
	}
	before, err := t.memory()
	if err != nil {
		return nil, err
	}
	if err := do(); err != nil {
		return nil, err
	}
	after, err := t.memory()
	if err != nil {
		return nil, err
	}
	p99, err := t.statusP99(id)
	return []measurement{
		{"growth of memory", after - before, bound, "MiB"},
		{"P99 of a status read meanwhile", p99, statusBound, "ms"},
	}, err
}

// unfinishedBodies sends 600 bodies of 1 MB but for their ends. Without a common bound the
// server holds all of them.
func unfinishedBodies(t *target) ([]measurement, error) {
	return t.grown(350, func() error {
		for i := range 600 {
			head := fmt.Sprintf("POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX-User-ID: user-%d\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n", i%7)
			if _, err := t.dial(head + strings.Repeat(" ", 990_000)); err != nil {
				return err
			}
		}
		return nil
	})
}

// slowReaders ask for a result of 20 MB and read nothing.
func slowReaders(t *target) ([]measurement, error) {
	id, text, err := t.submit("long", "wait=60")
	if err != nil || !strings.Contains(text, `"succeeded"`) {
		return nil, fmt.Errorf("the job with the long result: %.300s, %w", text, err)
	}
	return t.grown(350, func() error {
		for range 50 {
			for _, call := range []string{"result", "output", "events"} {
				if _, err := t.dial("GET /v1/jobs/" + id + "/" + call + " HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// nestedJSON submits inputs that are nested as deep as they are long.
func nestedJSON(t *target) ([]measurement, error) {
	accepted := 0
	rows, err := t.grown(200, func() error {
		for _, open := range []string{"[", `{"a":`, `{"a":[`} {
			for range 10 {
				status, _, err := t.call("POST", "/v1/jobs", `{"queue":"sim","input":`+strings.Repeat(open, 900_000/len(open)))
				if err != nil {
					return err
				}
				if status != 400 {
					accepted++
				}
			}
		}
		return nil
	})
	return append(rows, measurement{"inputs that were not refused", float64(accepted), 0, "of 30"}), err
}

// idleSockets opens more sockets than the server may open files. Its commands and other
// clients still work.
func idleSockets(t *target) ([]measurement, error) {
	for range 400 {
		if _, err := t.dial(""); err != nil {
			return nil, err
		}
	}
	failed := 0
	for range 20 {
		if _, text, err := t.submit("short", "wait=60"); err != nil || !strings.Contains(text, `"succeeded"`) {
			failed++
		}
	}
	silent := 1.0
	if strings.Contains(t.log(), "idle ones are closed") {
		silent = 0
	}
	return []measurement{
		{"commands that failed", float64(failed), 0, "of 20"},
		{"missing warnings in the log", silent, 0, ""},
	}, nil
}

// foreignHosts asks the server by names that a stranger's DNS could have.
func foreignHosts(t *target) ([]measurement, error) {
	answered := 0
	hosts := []string{"evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example:8080", "internal.evil.example"}
	for _, host := range hosts {
		status, _, err := t.call("GET", "/v1/jobs", "", "Host", host)
		if err != nil {
			return nil, err
		}
		if status != 403 {
			answered++
		}
	}
	return []measurement{{"names that were answered", float64(answered), 0, fmt.Sprintf("of %d", len(hosts))}}, nil
}
