package api

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/strictjson"
)

// everything has a field of each kind that requests use.
type everything struct {
	S    string            `json:"s"`
	P    *string           `json:"p"`
	I    int               `json:"i"`
	F    float64           `json:"f"`
	B    bool              `json:"b"`
	Raw  json.RawMessage   `json:"raw"`
	M    map[string]string `json:"m"`
	L    []string          `json:"l"`
	In   inner             `json:"in"`
	Ptr  *inner            `json:"ptr,omitempty"`
	None int               `json:"-"`
}

type inner struct {
	A *float64 `json:"a"`
	B []inner  `json:"b/~c"`
}

func TestDecodeJSONReadsEveryKind(t *testing.T) {
	t.Parallel()
	const body = ` {"s":"a\u00e9\ud83d\ude00\n\"","p":"x","i":-7,"f":1.5e2,"b":true,"raw": {"x":[1, 2]} ,
		"m":{"k":"v"},"l":["1","2"],"in":{"a":0,"b/~c":[{"a":1}]},"ptr":{}}` + "\r\n"
	var got, want everything
	if err := DecodeJSON([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(body), &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// null counts as missing, except for a json.RawMessage.
func TestDecodeJSONTreatsNullAsMissing(t *testing.T) {
	t.Parallel()
	var v everything
	if err := DecodeJSON([]byte(`{"s":null,"p":null,"i":null,"m":null,"ptr":null,"raw":null}`), &v); err != nil {
		t.Fatal(err)
	}
	if want := (everything{Raw: json.RawMessage("null")}); !reflect.DeepEqual(v, want) {
		t.Errorf("%+v", v)
	}
}

func TestDecodeJSONRefusesInvalidInput(t *testing.T) {
	t.Parallel()
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	many := `"0":0`
	for _, c := range strings.Split("abcdefghijklmnopq", "") {
		many += `,"` + c + `":0`
	}
	for _, tt := range []struct {
		rule, body, field, says string
	}{
		{"no body", ``, "", "no body"},
		{"only space", " \n", "", "no body"},
		{"half a body", `{"s":"x"`, "", "missing"},
		{"a string without an end", `{"s":"x`, "/s", "does not end"},
		{"an escape without an end", `{"s":"x\`, "/s", "escape"},
		{"an unknown word", `{"b":tru}`, "/b", "missing"},
		{"two values", `{} {}`, "", "more after"},
		{"a trailing comma", `{"s":"x",}`, "", "name in quotes"},
		{"a trailing comma in a list", `{"l":["x",]}`, "/l/1", "missing"},
		{"no colon", `{"s" "x"}`, "", "colon"},
		{"a bare name", `{s:"x"}`, "", "name in quotes"},
		{"single quotes", `{'s':1}`, "", "name in quotes"},
		{"NaN", `{"f":NaN}`, "/f", "missing"},
		{"Infinity", `{"f":-Infinity}`, "/f", "missing"},
		{"a leading zero", `{"f":01}`, "/f", "begin with 0"},
		{"a bare point", `{"f":1.}`, "/f", "digit"},
		{"a bare exponent", `{"raw":1e+}`, "/raw", "digit"},
		{"a number that is too large", `{"f":1e999}`, "/f", "too large"},
		{"a whole number that is too large", `{"i":9223372036854775808}`, "/i", "whole number"},
		{"a fraction for a whole number", `{"i":1.5}`, "/i", "whole number"},
		{"a string for a number", `{"i":"1"}`, "/i", "not a string"},
		{"a number for a string", `{"s":1}`, "/s", `"s" must be a string, not a number`},
		{"an object for a string", `{"p":{}}`, "/p", "must be a string, not an object"},
		{"a string for a boolean", `{"b":"true"}`, "/b", "true or false"},
		{"a list for an object", `{"in":[]}`, "/in", `"in" must be an object, not an array`},
		{"a list at the top", `[]`, "", "the JSON must be an object, not an array"},
		{"an object for a list", `{"l":{}}`, "/l", "must be an array, not an object"},
		{"a number among strings", `{"l":["x",2]}`, "/l/1", "it must be a string"},
		{"a number among pairs", `{"m":{"k":2}}`, "/m/k", `"k" must be a string`},
		{"an unknown field", `{"x":1}`, "/x", `no field "x"; there are s, p, i, f, b, raw, m, l, in, ptr`},
		{"a name in the wrong case", `{"S":"x"}`, "/S", "no field"},
		{"a field without a json tag", `{"None":1}`, "/None", "no field"},
		{"a field named -", `{"-":1}`, "/-", "no field"},
		{"an unknown field further in", `{"in":{"b/~c":[{"a/b":1}]}}`, "/in/b~1~0c/0/a~1b", `no field "a/b"; there are a, b/~c`},
		{"a field given twice", `{"s":"x","s":"x"}`, "/s", "twice"},
		{"a field given twice, once escaped", `{"s":"x","\u0073":"x"}`, "/s", "twice"},
		{"a pair given twice", `{"m":{"k":"1","k":"2"}}`, "/m/k", "twice"},
		{"a repeated name in a RawMessage", `{"raw":[{"k":1,"k":2}]}`, "/raw/0/k", "twice"},
		{"a repeated name among many", `{"raw":{` + many + `,"d":1}}`, "/raw/d", "twice"},
		{"invalid UTF-8", "{\"s\":\"\xff\"}", "/s", "UTF-8"},
		{"invalid UTF-8 in a RawMessage", "{\"raw\":[\"\xc3\"]}", "/raw/0", "UTF-8"},
		{"invalid UTF-8 after an escape", "{\"s\":\"\\n\xff\"}", "/s", "UTF-8"},
		{"an escaped NUL", `{"s":"a\u0000"}`, "/s", `\u0000`},
		{"an escaped NUL in a RawMessage", `{"raw":{"a":"\u0000"}}`, "/raw/a", `\u0000`},
		{"a NUL in a name", `{"raw":{"\u0000":1}}`, "/raw", `\u0000`},
		{"a raw NUL", "{\"s\":\"\x00\"}", "/s", "control character"},
		{"a raw NUL after an escape", "{\"s\":\"\\n\x00\"}", "/s", "control character"},
		{"a raw line break", "{\"s\":\"a\nb\"}", "/s", "control character"},
		{"a NUL between tokens", "{\x00}", "", "name in quotes"},
		{"half a surrogate pair", `{"s":"\ud83d"}`, "/s", "surrogate"},
		{"a low surrogate first", `{"s":"\ude00\ud83d"}`, "/s", "surrogate"},
		{"a surrogate pair with a letter inside", `{"s":"\ud83dx\ude00"}`, "/s", "surrogate"},
		{"a surrogate without the second escape", `{"s":"\ud83d__de00"}`, "/s", "surrogate"},
		{"an unknown escape", `{"s":"\x41"}`, "/s", "escape"},
		{"an escape without digits", `{"s":"\u12g4"}`, "/s", "hexadecimal"},
		{"an escape with a sign", `{"s":"\u+123"}`, "/s", "hexadecimal"},
		{"an incomplete escape", `{"s":"\u12`, "/s", "hexadecimal"},
		{"nested too deep", `{"raw":` + deep(job.MaxDepth) + `}`, "/raw" + strings.Repeat("/0", job.MaxDepth-1), "nested deeper"},
		{"nested far too deep", `{"raw":` + deep(1<<16) + `}`, "/raw" + strings.Repeat("/0", job.MaxDepth-1), "nested deeper"},
		{"a byte order mark", "\ufeff{}", "", "without"},
	} {
		var v everything
		err := DecodeJSON([]byte(tt.body), &v)
		e, ok := errors.AsType[*job.Error](err)
		if !ok || e.Code != job.Invalid {
			t.Errorf("%s: %v, want a refusal", tt.rule, err)
			continue
		}
		if e.Field != tt.field || !strings.Contains(e.Message, tt.says) {
			t.Errorf("%s: field %q: %s; want field %q and %q", tt.rule, e.Field, e.Message, tt.field, tt.says)
		}
	}
}

func TestDecodeJSONAcceptsMaxDepth(t *testing.T) {
	t.Parallel()
	body := `{"raw":` + strings.Repeat("[", job.MaxDepth-1) + strings.Repeat("]", job.MaxDepth-1) + `}`
	if err := DecodeJSON([]byte(body), new(everything)); err != nil {
		t.Error(err)
	}
}

// Only the levels that are open at once count as depth.
func TestDecodeJSONCountsOnlyOpenLevels(t *testing.T) {
	t.Parallel()
	body := `{"raw":[` + strings.Repeat("[{}],", 10*job.MaxDepth) + `[]]}`
	if err := DecodeJSON([]byte(body), new(everything)); err != nil {
		t.Error(err)
	}
}

// An error repeats only a short part of the client's text.
func TestErrorDoesNotRepeatLongName(t *testing.T) {
	t.Parallel()
	err := DecodeJSON([]byte(`{"`+strings.Repeat("x", 1<<20)+`":1}`), new(everything))
	e, _ := errors.AsType[*job.Error](err)
	if e == nil || len(e.Field)+len(e.Message) > 1000 {
		t.Errorf("%d bytes of error", len(err.Error()))
	}
}

// Accepted JSON is also valid for encoding/json and has the same value. Refused JSON that
// is valid for encoding/json has one of the listed faults.
func FuzzDecodeJSON(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"s":"a","i":3,"f":1e3,"raw":{"a":[1,2,{"b":null}]}}`, `{"s":"\u00e9\ud83d\ude00"}`, `{"s":"\ud83d"}`,
		`{"m":{"a":"b","a":"c"}}`, `[1`, `{"in":{"b/~c":[{"a":-0.0}]}}`, "{\"s\":\"\xff\"}", `{"i":01}`, `{"l":["x"],"ptr":{"a":null}}`,
		`{"S":"x"}`, `{"raw":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`, `{"raw":"\u0000"}`, `{"x":tru}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := checkJSON(data)
		if err == nil && !json.Valid(data) {
			t.Fatalf("taken, and is no JSON: %q", data)
		}
		if err != nil && json.Valid(data) && !faulty(data) {
			t.Fatalf("refused without a reason: %v: %q", err, data)
		}
		var got, want everything
		if DecodeJSON(data, &got) != nil {
			return
		}
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatalf("encoding/json: %v: %q", err, data)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q:\ngot  %+v\nwant %+v", data, got, want)
		}
	})
}

// checkJSON returns the error of the scanner for data, which must be one JSON value.
func checkJSON(data []byte) error {
	s := strictjson.New(data)
	if err := s.Skip(); err != nil {
		return err
	}
	if !s.AtEnd() {
		return s.SyntaxError("there is more after the end of the value")
	}
	return nil
}

// Where no field could be missing, null is refused with the kind that is wanted.
func TestNullIsRefusedOutsideFields(t *testing.T) {
	t.Parallel()
	type body struct {
		Texts   []string            `json:"texts"`
		Pairs   map[string]string   `json:"pairs"`
		Clocks  map[string]*float64 `json:"clocks"`
		Numbers []int               `json:"numbers"`
		Raw     []json.RawMessage   `json:"raw"`
		Objects []struct{ A int }   `json:"objects"`
	}
	for text, want := range map[string]string{
		`null`:                  "the JSON must be an object, not null",
		`{"texts":["a",null]}`:  "it must be a string, not null",
		`{"pairs":{"a":null}}`:  `"a" must be a string, not null`,
		`{"numbers":[null]}`:    "it must be a number, not null",
		`{"objects":[null]}`:    "it must be an object, not null",
		`{"pairs":{"a":nil}}`:   "syntax",
		`{"clocks":{"a":null}}`: "",
		`{"texts":null}`:        "",
		`{"raw":[null]}`:        "",
	} {
		err := DecodeJSON([]byte(text), new(body))
		if want == "" && err != nil || want == "syntax" && job.CodeOf(err) != job.Invalid || want != "" && want != "syntax" && (err == nil || err.Error() != want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
