package strictjson

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Members returns the values as they are written, and the scanner is at the end after
// them.
func TestMembersReturnsTextOfValues(t *testing.T) {
	t.Parallel()
	s := New([]byte(` { "a" : [1, "}\"" ] ,"\u0062":null , "c": -1.5e3} `))
	var got []string
	s.Peek()
	if err := s.Members(func(name, value []byte) *job.Error {
		got = append(got, string(name)+"="+string(value))
		return nil
	}); err != nil || !s.AtEnd() {
		t.Fatal(err, s.AtEnd())
	}
	if text := strings.Join(got, ";"); text != `a=[1, "}\"" ];b=null;c=-1.5e3` {
		t.Error(text)
	}
}

// Every error points to its value, also an error of the caller's function.
func TestErrorPointsToValue(t *testing.T) {
	t.Parallel()
	refuse := func(_, value []byte) *job.Error {
		if string(value) == "7" {
			return job.Errorf(job.Invalid, "not seven")
		}
		return nil
	}
	for text, field := range map[string]string{
		`{"a":7}`:                        "/a",
		`{"a":1,"a":1}`:                  "/a",
		`{"a/~":{"b":[1,{"c":x}]}}`:      "/a~1~0/b/1/c",
		`{"a":{"b":1,"b":1}}`:            "/a/b",
		"{\"a\":\"\xff\"}":               "/a",
		`{"a":"\ud800"}`:                 "/a",
		`{"a":"\u0000"}`:                 "/a",
		`{"a":"`:                         "/a",
		`{"a"`:                           "",
		`{"` + strings.Repeat("a", 300):  "",
		`{"a":` + strings.Repeat("[", 7): "/a/0/0/0/0/0/0/0",
	} {
		s := New([]byte(text))
		if err := s.Members(refuse); err == nil || err.Code != job.Invalid || err.Field != field {
			t.Errorf("%s: %+v, want it to point at %q", text, err, field)
		}
	}
}

// An accepted value is valid JSON, and its text is all of the input but space.
func FuzzValue(f *testing.F) {
	for _, seed := range []string{` {"a":[1,-0.5e3,true,{}]}`, `"\ud83d\ude00"`, `[[],nul]`, `{"a":1,"a":2}`, `01`, "\"\x1f\""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := New(data)
		value, err := s.Value()
		if err == nil && (!json.Valid(value) || s.AtEnd() && strings.Trim(string(data), " \t\r\n") != string(value)) {
			t.Errorf("%q is taken as %q", data, value)
		}
	})
}

func BenchmarkSkip500Bytes(b *testing.B) {
	text := []byte(`{"duration_ms":0,"echo":"` + strings.Repeat("x", 450) + `"}`)
	b.ReportAllocs()
	for b.Loop() {
		if s := New(text); s.Skip() != nil {
			b.Fatal("refused")
		}
	}
}

func BenchmarkRefuse(b *testing.B) {
	text := []byte(`{"jobs":[{"input":{"messages":[{"role":nobody}]}}]}`)
	b.ReportAllocs()
	for b.Loop() {
		if s := New(text); s.Skip() == nil {
			b.Fatal("taken")
		}
	}
}

func BenchmarkValid500Bytes(b *testing.B) {
	text := []byte(`{"duration_ms":0,"echo":"` + strings.Repeat("x", 450) + `"}`)
	for b.Loop() {
		json.Valid(text)
	}
}
