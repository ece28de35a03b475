package job_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// An id's text reads back as the same id, and sorts as the id does.
func TestIDTextRoundTrips(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var a, b job.ID
		copy(a[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "a"))
		copy(b[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "b"))
		back, err := job.ParseID(a.String())
		if err != nil || back != a {
			t.Fatalf("%s reads back as %s: %v", a, back, err)
		}
		if strings.Compare(a.String(), b.String()) != strings.Compare(string(a[:]), string(b[:])) {
			t.Fatalf("%s and %s do not sort as their bytes", a, b)
		}
	})
}

// An id has one spelling. Any other text is not found.
func TestIDHasOneSpelling(t *testing.T) {
	t.Parallel()
	id := job.NewID().String()
	for name, text := range map[string]string{
		"empty": "", "prefix only": "job_", "no prefix": id[4:], "other prefix": "msg_" + id[4:],
		"upper case": strings.ToUpper(id), "short": id[:len(id)-1], "long": id + "0",
		"a letter outside the alphabet": id[:10] + "u" + id[11:], "a space": id[:10] + " " + id[11:],
		"bits past the end": "job_" + strings.Repeat("z", 26), "a NUL": id[:10] + "\x00" + id[11:],
	} {
		if got, err := job.ParseID(text); job.CodeOf(err) != job.NotFound {
			t.Errorf("%s: %q was read as %s (%v)", name, text, got, err)
		}
	}
}

// Ids sort in the order in which they were made, and contain that time.
func TestNewIDsAscend(t *testing.T) {
	t.Parallel()
	before := time.Now().Add(-time.Millisecond)
	last := job.NewID()
	for range 1000 {
		next := job.NewID()
		if next.String() <= last.String() {
			t.Fatalf("%s was made after %s", next, last)
		}
		last = next
	}
	if at := last.Time(); at.Before(before) || at.After(time.Now().Add(time.Second)) {
		t.Fatalf("the time of the id is %s", at)
	}
}

func FuzzParseID(f *testing.F) {
	f.Add(job.NewID().String())
	f.Add("job_")
	f.Add("job_00000000000000000000000000")
	f.Add("job_zzzzzzzzzzzzzzzzzzzzzzzzzz")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := job.ParseID(text)
		if err == nil && id.String() != text {
			t.Fatalf("%q was read as %s", text, id)
		}
	})
}

// A log of any format has the public form of a job's id, so that an operator can ask for the
// job.
func TestLogsWritePublicIDs(t *testing.T) {
	t.Parallel()
	id := job.NewID()
	var text, json strings.Builder
	slog.New(slog.NewTextHandler(&text, nil)).Info("it failed", "job", id)
	slog.New(slog.NewJSONHandler(&json, nil)).Info("it failed", "job", id)
	if !strings.Contains(text.String(), "job="+id.String()) || !strings.Contains(json.String(), `"job":"`+id.String()+`"`) {
		t.Errorf("%s%s", &text, &json)
	}
}
