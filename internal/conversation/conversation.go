// Package conversation keeps conversations and their messages, as side rows of
// the store: a question is stored by the same transaction as its job, an answer by
// the one that ends the job.
//
// A message's number is its place: questions are odd, each answer follows its
// question. Whoever asks must be the first to take the next odd number. So two
// questions asked at the same moment become one job and one refusal.
//
// A conversation is answering while there is a row for an answer under way. The
// question stores that row, a retry of the answer's job stores it again, and the
// job's end removes it, each in its own transaction. While there is one no question
// is taken: no answer is written without knowing all that was said before.
//
// The package knows nothing of HTTP, nor of who runs jobs.
package conversation

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Bounds of what is kept.
const (
	MaxTitle    = 200       // bytes
	MaxMessages = 999_998   // in a conversation
	MaxAnswer   = 256 << 10 // bytes of an answer, as a message keeps it; the job's result has all of it
)

// ID names a conversation. The zero value names none.
type ID job.UUID

// String is the public form: "conv_" and 26 characters.
func (id ID) String() string { return job.UUID(id).Text("conv_") }

// IsZero says whether the id names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// Time is when the conversation began, to the millisecond.
func (id ID) Time() time.Time { return job.UUID(id).Time() }

// ParseID reads a conversation's public id. A text that is none is a
// [job.NotFound] error.
func ParseID(text string) (ID, error) {
	u, ok := job.ParseUUID("conv_", text)
	if !ok {
		return ID{}, unknown(text)
	}
	return ID(u), nil
}

func unknown(id string) *job.Error {
	return job.Errorf(job.NotFound, "there is no conversation %s", job.Quote(id))
}

// Conversation is a row of questions and answers. It has no state of its own.
type Conversation struct {
	ID ID
	// Title is what its maker called it, else the beginning of the first question;
	// "" until there is one.
	Title string
}

// kindConversation is the kind of a conversation's row; it has no parent.
const kindConversation = "conversation"

// conversationRow is what a conversation's row holds.
type conversationRow struct {
	Title string `json:"title,omitempty"`
}

func (c Conversation) row(owner job.Owner, do store.Action) store.Row {
	r := store.Row{Owner: owner, Kind: kindConversation, ID: c.ID.String(), Action: do}
	if do != store.Require && do != store.Remove {
		r.Body = encode(conversationRow{Title: c.Title})
	}
	return r
}

func decodeConversation(r store.Row) (Conversation, error) {
	id, err := ParseID(r.ID)
	if err != nil {
		return Conversation{}, damaged(r, err)
	}
	var body conversationRow
	if err := json.Unmarshal(r.Body, &body); err != nil {
		return Conversation{}, damaged(r, err)
	}
	return Conversation{ID: id, Title: body.Title}, nil
}

// conversationsOf are the rows of an owner's conversations.
func conversationsOf(owner job.Owner) store.RowSet {
	return store.RowSet{Owner: owner, Kind: kindConversation}
}

// makeTitle makes a title of a first question: its words on one line, cut short.
func makeTitle(question string) string {
	const most = 80
	title := strings.Join(strings.Fields(question), " ")
	if len(title) <= most {
		return title
	}
	return cut(title, most) + "…"
}

// cut shortens text to at most limit bytes, between two characters.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}

// encode writes a value as JSON, text as it is. Its types hold nothing that JSON
// cannot say.
func encode(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("conversation: " + err.Error())
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}

func damaged(r store.Row, cause error) *job.Error {
	return job.Wrapf(job.Internal, cause, "the stored %s %s cannot be read", r.Kind, job.Quote(r.ID))
}
