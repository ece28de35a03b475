package api

import (
	"net/http"
	"strings"
	"testing"
)

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// A valid traceparent is used as W3C Trace Context demands; an invalid one is ignored.
func TestTraceparentFollowsW3C(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sent []string
		want string
	}{
		"none":                             {nil, ""},
		"one":                              {[]string{parent}, parent},
		"not sampled":                      {[]string{parent[:53] + "00"}, parent[:53] + "00"},
		"other flags":                      {[]string{parent[:53] + "ff"}, parent[:53] + "ff"},
		"twice":                            {[]string{parent, parent}, ""},
		"empty":                            {[]string{""}, ""},
		"short":                            {[]string{parent[:54]}, ""},
		"long":                             {[]string{parent + "-00"}, ""},
		"capitals":                         {[]string{strings.ToUpper(parent)}, ""},
		"not hexadecimal":                  {[]string{"00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01"}, ""},
		"misplaced dashes":                 {[]string{"00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01"}, ""},
		"a trace id of zeros":              {[]string{"00-00000000000000000000000000000000-b7ad6b7169203331-01"}, ""},
		"a span id of zeros":               {[]string{"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"}, ""},
		"the invalid version ff":           {[]string{"ff" + parent[2:]}, ""},
		"a later version":                  {[]string{"01" + parent[2:]}, parent},
		"a later version with more fields": {[]string{"cc" + parent[2:53] + "0b-what-follows"}, parent},
		"a later version, not sampled":     {[]string{"cc" + parent[2:53] + "02"}, parent[:53] + "00"},
		"a later version without a dash":   {[]string{"cc" + parent[2:] + "0"}, ""},
	} {
		if got := Traceparent(&http.Request{Header: http.Header{"Traceparent": c.sent}}); got != c.want {
			t.Errorf("%s: %q was read as %q, want %q", name, c.sent, got, c.want)
		}
	}
}

func FuzzTraceparent(f *testing.F) {
	f.Add(parent)
	f.Add("01" + parent[2:] + "-x")
	f.Add("")
	f.Fuzz(func(t *testing.T, sent string) {
		ask := func(text string) string {
			return Traceparent(&http.Request{Header: http.Header{"Traceparent": {text}}})
		}
		got := ask(sent)
		if got != "" && (len(got) != len(parent) || got[:3] != "00-" || ask(got) != got) {
			t.Errorf("%q was taken as %q", sent, got)
		}
	})
}
