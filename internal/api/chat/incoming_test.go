package chat

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestParseMessageIsStrict(t *testing.T) {
	t.Parallel()
	task := job.NewID().String()
	for _, c := range []struct {
		rule, data string
		field      string
	}{
		{"a question", `{"type":"chat_query","query":"q","conversation_id":"c","client_id":"1","model":"m"}`, ""},
		{"a question without a client_id", `{"type":"chat_query","query":"q"}`, ""},
		{"a watch", `{"type":"watch","task_id":"` + task + `","after":7}`, ""},
		{"a watch from the beginning", `{"type":"watch","task_id":"` + task + `"}`, ""},
		{"a cancel", `{"type":"cancel","task_id":"` + task + `"}`, ""},
		{"a heartbeat", ` {"type":"heartbeat"} `, ""},
		{"an unknown type", `{"type":"launch"}`, "/type"},
		{"no type", `{"query":"q"}`, "/type"},
		{"a type that is not a string", `{"type":1}`, "/type"},
		{"a heartbeat with what else an old client sends", `{"type":"heartbeat","user":"ann","at":1}`, ""},
		{"an unknown field", `{"type":"cancel","x":1}`, "/x"},
		{"a field of another type", `{"type":"cancel","task_id":"t","after":1}`, "/after"},
		{"a field given twice", `{"type":"heartbeat","type":"cancel"}`, "/type"},
		{"a negative number", `{"type":"watch","task_id":"t","after":-1}`, "/after"},
		{"a number with a fraction", `{"type":"watch","task_id":"t","after":1.5}`, "/after"},
		{"a number that is too large", `{"type":"watch","task_id":"t","after":99999999999999999999}`, "/after"},
		{"a client_id that is too long", `{"type":"chat_query","query":"q","client_id":"` + strings.Repeat("x", job.MaxKey+1) + `"}`, "/client_id"},
		{"a client_id with a line break", `{"type":"chat_query","query":"q","client_id":"a\nb"}`, "/client_id"},
		{"a NUL", `{"type":"chat_query","query":"\u0000"}`, "/query"},
		{"half a surrogate pair", `{"type":"chat_query","query":"\ud800"}`, "/query"},
		{"invalid UTF-8", "{\"type\":\"chat_query\",\"query\":\"\xff\"}", "/query"},
		{"nothing", ``, "-"},
		{"not JSON", `hello`, "-"},
		{"incomplete JSON", `{"type":"heartbeat"`, "-"},
		{"two messages", `{"type":"heartbeat"}{"type":"heartbeat"}`, "-"},
		{"a list", `[{"type":"heartbeat"}]`, "-"},
		{"nested far too deep", strings.Repeat(`{"type":`, 10_000), "-"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			_, err := parseMessage([]byte(c.data))
			if c.field == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if job.CodeOf(err) != job.Invalid {
				t.Fatalf("error %v, want %s", err, job.Invalid)
			}
			if got := err.(*job.Error).Field; c.field != "-" && got != c.field {
				t.Fatalf("the field %q is blamed, want %q", got, c.field)
			}
		})
	}
}

// Any data is parsed as a message of a known type or refused with a code, and the refusal
// is valid JSON.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"type":"chat_query","query":"q","conversation_id":null,"client_id":"1"}`,
		`{"type":"watch","task_id":"job_","after":7}`, `{"type":"cancel"}`, `{"type":"heartbeat"}`,
		`{"type":"watch","after":-1}`, `{"type":"\ud83d\ude00"}`, "{\"type\":\"\xff\"}", `{}`, `[]`, ``, `{"a":{"a":{"a":1}}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := parseMessage(data)
		if err == nil {
			if allowedFields(in.Type) == nil && in.Type != "heartbeat" || in.After < 0 || len(in.ClientID) > job.MaxKey {
				t.Fatalf("%q is taken as %+v", data, in)
			}
			return
		}
		if job.CodeOf(err) != job.Invalid {
			t.Fatalf("%q: %v", data, err)
		}
		if frame := encodeFrame(newErrorFrame(in, err)); !json.Valid(frame) || len(frame) > 64<<10+8*len(data) {
			t.Fatalf("%q is answered with %q", data, frame)
		}
	})
}
