package conversation

import (
	"context"
	"slices"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Writer stores rows that belong to no job: all of them, or none and an error. It returns when
// they are on disk. The engine is a Writer.
type Writer interface {
	Write(ctx context.Context, rows ...store.Row) error
}

// Conversations reads and writes all conversations. It has no state: every read method is one
// read of the store, or two where its comment mentions it.
type Conversations struct {
	records store.RowReader
	writer  Writer
}

// New makes Conversations that read from a store and write through an engine.
func New(records store.RowReader, writer Writer) *Conversations {
	return &Conversations{records, writer}
}

// Create stores an empty conversation. The title may be "".
func (c *Conversations) Create(ctx context.Context, owner job.Owner, title string) (Conversation, error) {
	made := Conversation{ID: ID(job.NewUUID()), Title: title}
	return made, c.writer.Write(ctx, made.row(owner, store.Put))
}

// Get reads a conversation of the owner, or returns [job.NotFound].
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

// List reads a page of the owner's conversations, newest first, starting after the given id,
// and whether more follow. A zero id starts with the newest.
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

// Messages reads the newest messages before the given one, in the order of the conversation, and
// whether there are older ones. A zero id ends with the newest message. A page without messages
// costs a second read, which tells an empty conversation from one that does not exist
// ([job.NotFound]).
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

// Message reads one message, or returns [job.NotFound].
func (c *Conversations) Message(ctx context.Context, owner job.Owner, id MessageID) (Message, error) {
	row, err := c.records.Row(ctx, messagesOf(owner, id.Conversation), id.String())
	if err != nil {
		return Message{}, err
	}
	return decodeMessage(row)
}

// newest reads the newest messages of a conversation, newest first. It returns none when the
// conversation is empty or does not exist.
func (c *Conversations) newest(ctx context.Context, owner job.Owner, id ID, limit int) ([]Message, error) {
	rows, err := c.records.Rows(ctx, messagesOf(owner, id), store.RowPage{Desc: true, Limit: limit})
	if err != nil {
		return nil, err
	}
	return decodeRows(rows, decodeMessage)
}

// Delete removes a conversation, its messages and the jobs of its answers, or returns
// [job.NotFound]. It removes the jobs first: no prompt is left once the conversation is gone, and
// no job can be retried in between. The function remove deletes jobs of the owner, running ones
// too, and ignores jobs that do not exist. A Delete that fails may have removed some of the
// jobs, and can be repeated.
func (c *Conversations) Delete(ctx context.Context, owner job.Owner, id ID, remove func([]job.ID) error) error {
	const tries = 8 // try again when a question was asked during the last try
	var last MessageID
	for range tries {
		// The jobs of a further try are only those of messages after the last one.
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

// removeJobs removes the jobs of all messages after the given one. It returns the last message,
// zero for an empty conversation.
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
			// A question and its answer name the same job. A damaged row names none, and must not
			// keep the conversation from being deleted.
			if task, ok := TaskOf(r.Body); ok && !slices.Contains(tasks, task) {
				tasks = append(tasks, task)
			}
		}
		if err := remove(tasks); err != nil {
			return last, err
		}
	}
}

// removeRows removes all rows of a conversation. It returns [job.Conflict] when a question was
// asked after the last message. To find out it inserts the next question itself, and removes
// it with the others.
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
