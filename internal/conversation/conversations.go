package conversation

import (
	"context"
	"slices"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Writer stores rows that belong to no job, and returns when they are on disk: all
// of them, or none and why. The engine is one.
type Writer interface {
	Write(ctx context.Context, rows ...store.Row) error
}

// Conversations are all conversations that are kept. It holds nothing itself: every
// reading method is one read of the store, two where its comment says so.
type Conversations struct {
	records store.Records
	writer  Writer
}

// New makes Conversations that are kept in a store and written through an engine.
func New(records store.Records, writer Writer) *Conversations {
	return &Conversations{records, writer}
}

// Create makes an empty conversation. The title may be "".
func (c *Conversations) Create(ctx context.Context, owner job.Owner, title string) (Conversation, error) {
	made := Conversation{ID: ID(job.NewUUID()), Title: title}
	return made, c.writer.Write(ctx, made.row(owner, store.Put))
}

// Get finds a conversation of the owner's, or is [job.NotFound].
func (c *Conversations) Get(ctx context.Context, owner job.Owner, id ID) (Conversation, error) {
	row, err := c.records.Row(ctx, kindConversation, parentOf(owner), id.String())
	if job.CodeOf(err) == job.NotFound {
		return Conversation{}, unknown(id.String())
	}
	if err != nil {
		return Conversation{}, err
	}
	return readConversation(row)
}

// List returns a page of the owner's conversations, newest first, beginning behind
// the one given, and whether more follow. A zero id begins with the newest.
func (c *Conversations) List(ctx context.Context, owner job.Owner, after ID, limit int) ([]Conversation, bool, error) {
	page := store.RowPage{Desc: true, Limit: limit + 1}
	if !after.IsZero() {
		page.From = after.String()
	}
	rows, err := c.records.Rows(ctx, kindConversation, parentOf(owner), page)
	if err != nil {
		return nil, false, err
	}
	more := len(rows) > limit
	all, err := readAll(rows[:min(limit, len(rows))], readConversation)
	return all, more, err
}

// Messages returns the newest messages of a conversation before the one given, in
// the order in which they were said, and whether there are older ones. A zero id
// ends with the newest. A page without messages costs a second read, which tells
// an empty conversation from none.
func (c *Conversations) Messages(ctx context.Context, owner job.Owner, id ID, before MessageID, limit int) ([]Message, bool, error) {
	page := store.RowPage{Desc: true, Limit: limit + 1}
	if before != (MessageID{}) {
		page.From = before.String()
	}
	rows, err := c.records.Rows(ctx, kindMessage, messagesOf(owner, id), page)
	if err != nil {
		return nil, false, err
	}
	if len(rows) == 0 {
		_, err := c.Get(ctx, owner, id)
		return nil, false, err
	}
	more := len(rows) > limit
	all, err := readAll(rows[:min(limit, len(rows))], readMessage)
	slices.Reverse(all)
	return all, more, err
}

// Message finds one message, or is [job.NotFound].
func (c *Conversations) Message(ctx context.Context, owner job.Owner, id MessageID) (Message, error) {
	row, err := c.records.Row(ctx, kindMessage, messagesOf(owner, id.Conversation), id.String())
	if err != nil {
		return Message{}, err
	}
	return readMessage(row)
}

// newest returns the newest messages of a conversation, newest first; none when it
// is empty or does not exist.
func (c *Conversations) newest(ctx context.Context, owner job.Owner, id ID, limit int) ([]Message, error) {
	rows, err := c.records.Rows(ctx, kindMessage, messagesOf(owner, id), store.RowPage{Desc: true, Limit: limit})
	if err != nil {
		return nil, err
	}
	return readAll(rows, readMessage)
}

// Delete removes a conversation with its messages, or is [job.NotFound]. Before,
// it has cancel stop the answer that is still being written, if there is one.
func (c *Conversations) Delete(ctx context.Context, owner job.Owner, id ID, cancel func(job.ID) error) error {
	const tries = 8 // each one more means that another question came between
	var err error
	for range tries {
		err = c.deleteOnce(ctx, owner, id, cancel)
		if job.CodeOf(err) != job.Conflict {
			return err
		}
	}
	return err
}

// deleteOnce is [job.Conflict] when a question came after it had looked for one: it
// inserts the next question itself, and removes it with the others.
func (c *Conversations) deleteOnce(ctx context.Context, owner job.Owner, id ID, cancel func(job.ID) error) error {
	last, err := c.newest(ctx, owner, id, 1)
	if err == nil && len(last) == 0 {
		_, err = c.Get(ctx, owner, id)
	}
	if err != nil {
		return err
	}
	next := Message{ID: MessageID{id, 1}, Role: User}
	if len(last) > 0 {
		next.ID.Number = last[0].ID.Number + 1
		if last[0].pending() {
			if err := cancel(last[0].Task); err != nil {
				return err
			}
		}
	}
	gone := Conversation{ID: id}
	all := store.Row{Kind: kindMessage, Parent: messagesOf(owner, id), Do: store.RemoveAll}
	return c.writer.Write(ctx, next.row(owner, store.Insert), gone.row(owner, store.Remove), all)
}

func readAll[T any](rows []store.Row, read func(store.Row) (T, error)) ([]T, error) {
	all := make([]T, 0, len(rows))
	for _, r := range rows {
		v, err := read(r)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}
