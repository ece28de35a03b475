package postgres

import (
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// The default of the column id is an id as the program makes it.
func TestInboxMakesJobIDs(t *testing.T) {
	t.Parallel()
	conn := NewDatabase(t).Connect(t)
	seen := map[job.ID]bool{}
	for range 200 {
		var text string
		if err := conn.QueryRow(t.Context(), `insert into inbox (queue, body) values ('q', '{"input":1}') returning id`).Scan(&text); err != nil {
			t.Fatal(err)
		}
		id, err := job.ParseID(text)
		if err != nil || seen[id] {
			t.Fatalf("%s: %v, or it was made before", text, err)
		}
		if away := time.Since(id.Time()).Abs(); id[6]>>4 != 7 || id[8]>>6 != 2 || away > time.Minute {
			t.Fatalf("%x is no version 7 UUID of this minute", id[:])
		}
		seen[id] = true
	}
}
