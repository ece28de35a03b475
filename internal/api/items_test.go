package api

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

type several struct {
	Before string       `json:"before"`
	List   Items[inner] `json:"list"`
	After  bool         `json:"after"`
}

// A wrong element keeps its error, and all others are decoded.
func TestItemsKeepErrorsOfSingleElements(t *testing.T) {
	t.Parallel()
	v := several{List: Items[inner]{Max: 9}}
	const body = `{"before":"x","list":[ {"a":1} ,{"a":"one"},7,null,{"nope":[{}]},{"b/~c":[{"a":{}}]},{"a":2}],"after":true}`
	if err := DecodeJSON([]byte(body), &v); err != nil {
		t.Fatal(err)
	}
	if v.Before != "x" || !v.After || len(v.List.Elements) != 7 || *v.List.Elements[0].Value.A != 1 || *v.List.Elements[6].Value.A != 2 {
		t.Errorf("%+v", v)
	}
	for i, want := range []string{"", "/a", "", "", "/nope", "/b~1~0c/0/a", ""} {
		it := v.List.Elements[i]
		if wrong := i%6 != 0; wrong != (it.Err != nil) || wrong && it.Err.Field != want {
			t.Errorf("element %d: %+v, want %q", i, it.Err, want)
		}
	}
	if got := string(v.List.Elements[0].Text) + string(v.List.Elements[4].Text); got != `{"a":1}{"nope":[{}]}` {
		t.Errorf("the texts are %s", got)
	}
}

// A syntax error or too many elements refuse the whole array.
func TestItemsRefuseWholeArray(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", job.MaxDepth) + strings.Repeat("]", job.MaxDepth)
	for _, tt := range []struct {
		rule, list string
		code       job.Code
		field      string
	}{
		{"not a list", `{}`, job.Invalid, "/list"},
		{"one element too many", `[{},{},{},{}]`, job.TooLarge, "/list/3"},
		{"broken JSON after a refused field", `[{},{"nope":01}]`, job.Invalid, "/list/1/nope"},
		{"a repeated name after a refused field", `[{"nope":1,"x":1,"x":1}]`, job.Invalid, "/list/0/x"},
		{"too deep together with the list", `[{"nope":` + deep + `}]`, job.Invalid, anyField},
		{"a list without an end", `[{}`, job.Invalid, "/list"},
	} {
		v := several{List: Items[inner]{Max: 3}}
		err := DecodeJSON([]byte(`{"list":`+tt.list+`}`), &v)
		e, ok := errors.AsType[*job.Error](err)
		if !ok || e.Code != tt.code || tt.field != anyField && e.Field != tt.field {
			t.Errorf("%s: %+v, want %s at %s", tt.rule, e, tt.code, tt.field)
		}
	}
}

const anyField = "*"

// An array is accepted exactly if its JSON is valid, and each element has its own text.
func FuzzItems(f *testing.F) {
	for _, seed := range []string{`[]`, `[{"a":1}]`, `[{"a":1},{"a":"x"},{}]`, `[{"nope":{"x":[1,"\ud83d"]}}]`, `[[[[]]],7,null]`, `[{"a":1]`, `null`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, list []byte) {
		v := Items[inner]{Max: 100}
		err := DecodeJSON(list, &v)
		switch {
		case err == nil && !json.Valid(list):
			t.Fatalf("%q was read", list)
		case err != nil && json.Valid(list) && !faulty(list) && list[0] == '[' && strings.Count(string(list), ",") < 100:
			t.Fatalf("%q was refused: %v", list, err)
		}
		if err != nil {
			return
		}
		var texts []json.RawMessage
		if err := json.Unmarshal(list, &texts); err != nil || len(texts) != len(v.Elements) {
			t.Fatalf("%q: %d elements, want %d (%v)", list, len(v.Elements), len(texts), err)
		}
		for i, text := range texts {
			if string(v.Elements[i].Text) != string(text) {
				t.Fatalf("element %d is %q, want %q", i, v.Elements[i].Text, text)
			}
		}
	})
}
