package jobs

import (
	"encoding/json"
	"net/url"
	"reflect"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A list selects the jobs that match its query.
func TestListFilters(t *testing.T) {
	t.Parallel()
	key, empty := "ann", ""
	for query, want := range map[string]job.Filter{
		"":                         {Limit: 20},
		"?queue=&status=&limit=":   {Limit: 20},
		"?key=":                    {Limit: 20, Key: &empty},
		"?queue=sim&status=failed": {Limit: 20, Queue: "sim", Status: job.Failed},
		"?error_code=upstream_500": {Limit: 20, ErrorCode: "upstream_500"},
		"?key=ann&limit=100&after=" + api.PageCursor(anID): {Limit: 100, Key: &key, After: anID},
		"?created_after=2030-01-31T09:00:00Z&created_before=2030-01-31T11:00:00.5%2B01:00": {
			Limit: 20, CreatedAfter: time.Date(2030, 1, 31, 9, 0, 0, 0, time.UTC), CreatedBefore: time.Date(2030, 1, 31, 10, 0, 0, 5e8, time.UTC),
		},
		"?metadata.order=17&metadata.a%20b=&metadata.x.y=%C3%A9": {Limit: 20, Metadata: map[string]string{"order": "17", "a b": "", "x.y": "é"}},
	} {
		f := newFake(t)
		w := f.ask("GET", "/v1/jobs"+query, "")
		want.Owner = owner
		got := f.filter
		got.CreatedBefore, got.CreatedAfter = inUTC(got.CreatedBefore), inUTC(got.CreatedAfter)
		if w.Code != 200 || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %d\n%+v, want\n%+v", query, w.Code, got, want)
		}
	}
}

func inUTC(at time.Time) time.Time {
	if at.IsZero() {
		return at
	}
	return at.UTC()
}

// A query and a body with the same values select the same jobs.
func FuzzFilters(f *testing.F) {
	for _, seed := range []struct{ name, value string }{
		{"queue", "sim"}, {"status", "failed"}, {"key", ""}, {"error_code", "x"}, {"created_before", "2030-01-31T09:00:00Z"},
		{"created_after", "2030-01-31T09:00:00.123456789+14:00"}, {"metadata.a", "b"}, {"metadata.", "b"}, {"metadata.a\x00", "b"}, {"all", "true"}, {"limit", "5"},
	} {
		f.Add(seed.name, seed.value)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		if name == "limit" || name == "after" || name == "all" || value == "" && name != "key" || !utf8.ValidString(name+value) {
			return // these parameters are not the same in a query and a body
		}
		listed, changed := newFake(t), newFake(t)
		list := listed.ask("GET", "/v1/jobs?"+url.Values{name: {value}}.Encode(), "")
		change := changed.ask("POST", "/v1/jobs/cancel", bodyOf(t, name, value))
		listed.filter.Limit = 0
		if (list.Code == 200) != (change.Code == 200) || !reflect.DeepEqual(listed.filter, changed.filter) {
			t.Errorf("%q=%q: the query %d %+v, the body %d %+v", name, value, list.Code, listed.filter, change.Code, changed.filter)
		}
	})
}

// bodyOf returns the JSON body that selects the same as a query with one parameter.
func bodyOf(t *testing.T, name, value string) string {
	var body any = map[string]string{name: value}
	if len(name) >= len(metadataPrefix) && name[:len(metadataPrefix)] == metadataPrefix {
		body = map[string]any{"metadata": map[string]string{name[len(metadataPrefix):]: value}}
	}
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
