// Package conversation keeps conversations and their messages as side rows of the store. The
// transaction that stores a job stores its question; the transaction that ends the job stores
// the answer.
//
// Messages are numbered from 1: questions have odd numbers, and each answer has the number after
// its question. A question inserts the next odd number, and only the first insert of a number
// succeeds. So of two questions asked at the same moment one becomes a job, and the other is
// refused.
//
// A conversation is answering while it has an answering row. The question stores that row, a
// retry of the answer's job stores it again, and the end of the job removes it, each in its own
// transaction. While the row exists no question is accepted, so that every prompt contains
// all earlier answers.
//
// A client may name a conversation itself; see name.go. The list of conversations is in the
// order of their last messages; see place.go.
//
// The package depends on neither HTTP nor the engine.
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

// The bounds of conversations.
const (
	MaxTitle    = 200       // bytes
	MaxMessages = 999_998   // in a conversation
	MaxAnswer   = 256 << 10 // bytes of an answer in its message; the job's result has all of it
)

// ID identifies a conversation. The zero value is no conversation.
type ID job.UUID

// String is the id's public form: "conv_" and 26 characters.
func (id ID) String() string { return job.UUID(id).Text("conv_") }

// IsZero reports whether id is the zero value.
func (id ID) IsZero() bool { return id == ID{} }

// Time is when the id was made, to the millisecond.
func (id ID) Time() time.Time { return job.UUID(id).Time() }

// ParseID parses a conversation's public id. Any other text is a [job.NotFound] error.
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

// Conversation is a sequence of questions and answers. It has no state of its own.
type Conversation struct {
	ID ID
	// Name is the client's own name for the conversation; "" where the server made its id.
	Name string
	// Title is set when the conversation is created, else it is the beginning of the first
	// question; "" until then.
	Title string
	// LastMessage is when the last question was asked, or answered. A conversation without
	// questions has the time of its creation.
	LastMessage time.Time

	place place // in the list of the owner's conversations
}

// PublicID is the id that clients know: the name, else the text of the ID.
func (c Conversation) PublicID() string {
	if c.Name != "" {
		return c.Name
	}
	return c.ID.String()
}

// kindConversation is the kind of conversation rows. They have no parent.
const kindConversation = "conversation"

// conversationRow is the body of a conversation row.
type conversationRow struct {
	Title string `json:"title,omitempty"`
	Name  string `json:"name,omitempty"`
}

func (c Conversation) row(owner job.Owner, do store.Action) store.Row {
	r := store.Row{Owner: owner, Kind: kindConversation, ID: c.ID.String(), Action: do}
	if do != store.Require && do != store.Remove {
		r.Body = encode(conversationRow{c.Title, c.Name})
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
	return Conversation{ID: id, Name: body.Name, Title: body.Title}, nil
}

// conversationsOf is the set of an owner's conversation rows.
func conversationsOf(owner job.Owner) store.RowSet {
	return store.RowSet{Owner: owner, Kind: kindConversation}
}

// makeTitle makes a title from a first question: its words on one line, cut to 80 bytes.
func makeTitle(question string) string {
	const maxBytes = 80
	title := strings.Join(strings.Fields(question), " ")
	if len(title) <= maxBytes {
		return title
	}
	return cut(title, maxBytes) + "…"
}

// cut shortens text to at most limit bytes, and never cuts inside a character.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}

// encode writes a value as JSON without HTML escapes. It panics on a type that JSON cannot
// represent; the package has none.
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
