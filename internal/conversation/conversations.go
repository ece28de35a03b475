package conversation

import (
	"context"
	"slices"
	"time"

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
	// set once
	records store.RowReader
	writer  Writer
	now     func() time.Time
}

// New makes Conversations that read from a store and write through an engine.
func New(records store.RowReader, writer Writer) *Conversations {
	return &Conversations{records, writer, time.Now}
}

// Create stores an empty conversation. The title may be "".
func (c *Conversations) Create(ctx context.Context, owner job.Owner, title string) (Conversation, error) {
	made := newConversation("", title)
	return made, c.writer.Write(ctx, append(made.rowsAt(owner, made.place), made.row(owner, store.Put))...)
}

func newConversation(name, title string) Conversation {
	id := ID(job.NewUUID())
	at := placeAt(id.Time(), id)
	return Conversation{id, name, title, at.time(), at}
}

// Get reads a conversation of the owner, in two reads, or returns [job.NotFound].
func (c *Conversations) Get(ctx context.Context, owner job.Owner, id ID) (Conversation, error) {
	row, err := c.records.Row(ctx, conversationsOf(owner), id.String())
	if job.CodeOf(err) == job.NotFound {
		return Conversation{}, unknown(id.String())
	}
	if err != nil {
		return Conversation{}, err
	}
	found, err := decodeConversation(row)
	if err != nil {
		return Conversation{}, err
	}
	return c.withPlace(ctx, owner, found)
}

// List reads a page of the owner's conversations, the one with the last message first. after is
// the cursor of an earlier page; "" starts with the newest. next is "" on the last page. A wrong
// cursor is [job.Invalid].
func (c *Conversations) List(ctx context.Context, owner job.Owner, after string, limit int) (page []Conversation, next string, err error) {
	if _, ok := parsePlace(after); !ok && after != "" {
		return nil, "", job.Errorf(job.Invalid, "after must be the next of an earlier page, not %s", job.Quote(after))
	}
	rows, err := c.records.Rows(ctx, placesOf(owner), store.RowPage{Desc: true, After: after, Limit: limit + 1})
	if err != nil {
		return nil, "", err
	}
	if len(rows) > limit {
		rows = rows[:limit]
		next = rows[limit-1].ID
	}
	page, err = decodeRows(rows, decodePlace)
	return page, next, err
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
		conversation, err := c.Get(ctx, owner, id)
		if err != nil {
			return err
		}
		if err = c.removeRows(ctx, owner, conversation, last); job.CodeOf(err) != job.Conflict {
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
func (c *Conversations) removeRows(ctx context.Context, owner job.Owner, conversation Conversation, last MessageID) error {
	rows, err := c.rowsOfDelete(ctx, owner, conversation)
	if err != nil {
		return err
	}
	next := Message{ID: MessageID{conversation.ID, last.Number + 1}, Role: User}
	rows = append(rows, next.row(owner, store.Insert), conversation.row(owner, store.Remove))
	rows = append(rows, conversation.rowsWithoutPlace(owner)...)
	for _, kind := range []string{kindMessage, kindAnswering} {
		rows = append(rows, store.Row{Owner: owner, Kind: kind, Parent: conversation.ID.String(), Action: store.RemoveAll})
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
