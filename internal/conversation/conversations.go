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
	records store.RowReader
	writer  Writer
}

// New makes Conversations that are kept in a store and written through an engine.
func New(records store.RowReader, writer Writer) *Conversations {
	return &Conversations{records, writer}
}

// Create makes an empty conversation. The title may be "".
func (c *Conversations) Create(ctx context.Context, owner job.Owner, title string) (Conversation, error) {
	made := Conversation{ID: ID(job.NewUUID()), Title: title}
	return made, c.writer.Write(ctx, made.row(owner, store.Put))
}

// Get finds a conversation of the owner's, or is [job.NotFound].
func (c *Conversations) Get(ctx context.Context, owner job.Owner, id ID) (Conversation, error) {
	row, err := c.records.Row(ctx, conversationsOf(owner), id.String())
	if job.CodeOf(err) == job.NotFound {
		return Conversation{}, unknown(id.String())
	}
	if err != nil {
		return Conversation{}, err
	}
	return decodeConversation(row)
}

// List returns a page of the owner's conversations, newest first, beginning behind
// the one given, and whether more follow. A zero id begins with the newest.
func (c *Conversations) List(ctx context.Context, owner job.Owner, after ID, limit int) ([]Conversation, bool, error) {
	page := store.RowPage{Desc: true, Limit: limit + 1}
	if !after.IsZero() {
		page.After = after.String()
	}
	rows, err := c.records.Rows(ctx, conversationsOf(owner), page)
	if err != nil {
		return nil, false, err
	}
	more := len(rows) > limit
	all, err := decodeRows(rows[:min(limit, len(rows))], decodeConversation)
	return all, more, err
}

// Messages returns the newest messages of a conversation before the one given, in
// the order in which they were said, and whether there are older ones. A zero id
// ends with the newest. A page without messages costs a second read, which tells
// an empty conversation from none.
func (c *Conversations) Messages(ctx context.Context, owner job.Owner, id ID, before MessageID, limit int) ([]Message, bool, error) {
	page := store.RowPage{Desc: true, Limit: limit + 1}
	if before != (MessageID{}) {
		page.After = before.String()
	}
	rows, err := c.records.Rows(ctx, messagesOf(owner, id), page)
	if err != nil {
		return nil, false, err
	}
	if len(rows) == 0 {
		_, err := c.Get(ctx, owner, id)
		return nil, false, err
	}
	more := len(rows) > limit
	all, err := decodeRows(rows[:min(limit, len(rows))], decodeMessage)
	slices.Reverse(all)
	return all, more, err
}

// Message finds one message, or is [job.NotFound].
func (c *Conversations) Message(ctx context.Context, owner job.Owner, id MessageID) (Message, error) {
	row, err := c.records.Row(ctx, messagesOf(owner, id.Conversation), id.String())
	if err != nil {
		return Message{}, err
	}
	return decodeMessage(row)
}

// newest returns the newest messages of a conversation, newest first; none when it
// is empty or does not exist.
func (c *Conversations) newest(ctx context.Context, owner job.Owner, id ID, limit int) ([]Message, error) {
	rows, err := c.records.Rows(ctx, messagesOf(owner, id), store.RowPage{Desc: true, Limit: limit})
	if err != nil {
		return nil, err
	}
	return decodeRows(rows, decodeMessage)
}

// Delete removes a conversation with its messages and the jobs that answered them, or
// is [job.NotFound]. The jobs go first, so that no prompt is left when the
// conversation is gone, and none of them can be retried meanwhile. remove deletes jobs
// of the owner's, those under way too, and passes over those that do not exist. A
// Delete that fails may have removed some of the jobs; it can be asked again.
func (c *Conversations) Delete(ctx context.Context, owner job.Owner, id ID, remove func([]job.ID) error) error {
	const tries = 8 // each one more means that another question came between
	var last MessageID
	for range tries {
		var err error
		if last, err = c.removeJobs(ctx, owner, id, last, remove); err != nil {
			return err
		}
		if err = c.removeRows(ctx, owner, id, last); job.CodeOf(err) != job.Conflict {
			return err
		}
	}
	return job.Errorf(job.Conflict, "questions came faster than the conversation could be deleted: delete it again")
}

// removeJobs removes the jobs of all messages after the given one, and returns the
// last message. An empty conversation has the zero one.
func (c *Conversations) removeJobs(ctx context.Context, owner job.Owner, id ID, after MessageID, remove func([]job.ID) error) (last MessageID, err error) {
	const page = 50 // up to 7 MiB of text
	for last = after; ; {
		from := ""
		if last != (MessageID{}) {
			from = last.String()
		}
		rows, err := c.records.Rows(ctx, messagesOf(owner, id), store.RowPage{After: from, Limit: page})
		if err != nil {
			return last, err
		}
		if len(rows) == 0 && last == (MessageID{}) {
			_, err := c.Get(ctx, owner, id)
			return last, err
		}
		if len(rows) == 0 {
			return last, nil
		}
		var tasks []job.ID
		for _, r := range rows {
			number, ok := ParseMessageID(r.ID)
			if !ok {
				return last, damaged(r, nil)
			}
			last = number
			// A question and its answer name the same job. A row that cannot be read names none.
			if task, ok := TaskOf(r.Body); ok && !slices.Contains(tasks, task) {
				tasks = append(tasks, task)
			}
		}
		if err := remove(tasks); err != nil {
			return last, err
		}
	}
}

// removeRows removes all rows of a conversation. It is [job.Conflict] when a question
// came after the last message: it inserts the next question itself, and removes it
// with the others.
func (c *Conversations) removeRows(ctx context.Context, owner job.Owner, id ID, last MessageID) error {
	next := Message{ID: MessageID{id, last.Number + 1}, Role: User}
	rows := []store.Row{next.row(owner, store.Insert), Conversation{ID: id}.row(owner, store.Remove)}
	for _, kind := range []string{kindMessage, kindAnswering} {
		rows = append(rows, store.Row{Owner: owner, Kind: kind, Parent: id.String(), Action: store.RemoveAll})
	}
	return c.writer.Write(ctx, rows...)
}

func decodeRows[T any](rows []store.Row, read func(store.Row) (T, error)) ([]T, error) {
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
