package conversation

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// How much of a conversation a model is sent: the newest messages, up to both.
const (
	historyMessages = 40
	historyBytes    = 128 << 10
)

// Turn is a question that is about to be asked: what is to be stored with its job,
// and what its model is to be sent.
type Turn struct {
	owner        job.Owner
	conversation Conversation
	isNew        bool // the conversation is made by this turn
	setsTitle    bool // this turn gives the conversation its title
	number       int  // of the question
	query        string
	history      []Message
}

// Begin prepares a question. With a zero id it also makes the conversation that it
// opens; another id must be a conversation of the owner's, else [job.NotFound].
func (c *Conversations) Begin(ctx context.Context, owner job.Owner, id ID, query string) (Turn, error) {
	t := Turn{owner: owner, number: 1, query: query}
	if id.IsZero() {
		t.conversation = Conversation{ID: ID(job.NewUUID()), Title: makeTitle(query)}
		t.isNew = true
		return t, nil
	}
	t.conversation.ID = id
	earlier, err := c.newest(ctx, owner, id, historyMessages)
	if err != nil {
		return Turn{}, err
	}
	if len(earlier) > 0 {
		return t.asNext(earlier)
	}
	return t.asFirst(ctx, c)
}

// asFirst makes the turn the first one of a conversation that has no messages.
func (t Turn) asFirst(ctx context.Context, c *Conversations) (Turn, error) {
	var err error
	if t.conversation, err = c.Get(ctx, t.owner, t.conversation.ID); err != nil {
		return Turn{}, err
	}
	if t.conversation.Title == "" {
		t.conversation.Title, t.setsTitle = makeTitle(t.query), true
	}
	return t, nil
}

// asNext places the turn behind the earlier messages, which are given newest first.
//
// While one of them is pending there is no place: the turn then takes the number of
// that answer's question, which is taken. Its submit is refused with that question's
// row, unless it is the very submit that asked it, sent again. So it is refused also
// when the answer is given before the submit: the turn does not know that answer.
func (t Turn) asNext(earlier []Message) (Turn, error) {
	newest := earlier[0]
	t.number = newest.ID.Number + 1
	if i := slices.IndexFunc(earlier, Message.isPending); i >= 0 {
		t.number = earlier[i].ID.Number - 1
	}
	if t.number >= MaxMessages {
		return Turn{}, job.Errorf(job.TooLarge, "the conversation has %d messages and takes no more: begin a new one", newest.ID.Number)
	}
	t.history = promptHistory(earlier)
	return t, nil
}

// Ref is what the job must carry for [AtEnd] to find its answer.
func (t Turn) Ref() string { return t.answer().String() }

func (t Turn) answer() MessageID { return MessageID{t.conversation.ID, t.number + 1} }

// Rows are stored with the turn's job, or not at all. The submit is refused with
// [job.Conflict] when the conversation is answering, and the body of the row that
// was met tells [TaskOf] the job; with [job.NotFound] when the conversation is gone.
func (t Turn) Rows(task job.ID) []store.Row {
	asked := Message{ID: MessageID{t.conversation.ID, t.number}, Role: User, Task: task, Content: t.query}
	answer := pendingAnswer(t.answer(), task)
	rows := make([]store.Row, 0, 6)
	if t.isNew {
		rows = append(rows, t.conversation.row(t.owner, store.Put))
	} else {
		// A retry may have made an older answer pending since the turn began.
		none := store.Row{Owner: t.owner, Kind: kindAnswering, Parent: t.conversation.ID.String(), Action: store.RequireNone}
		rows = append(rows, t.conversation.row(t.owner, store.Require), none)
	}
	rows = append(rows, asked.row(t.owner, store.Insert), answer.row(t.owner, store.Put), answer.answering(t.owner, store.Put))
	if t.setsTitle {
		rows = append(rows, t.conversation.row(t.owner, store.Update))
	}
	return rows
}

// TaskOf is the job that the conversation is answering, by the row that was met; see
// [Turn.Rows].
func TaskOf(body []byte) (job.ID, bool) {
	var m answeringRow
	if json.Unmarshal(body, &m) != nil {
		return job.ID{}, false
	}
	id, err := job.ParseID(m.Task)
	return id, err == nil
}

// Prompt is the chat-completions body that asks the question, with what was said
// before it. Model may be "".
func (t Turn) Prompt(model string) []byte {
	type message struct {
		Role    Role   `json:"role"`
		Content string `json:"content"`
	}
	said := make([]message, 0, len(t.history)+1)
	for _, m := range t.history {
		said = append(said, message{m.Role, m.Content})
	}
	return encode(struct {
		Model    string    `json:"model,omitempty"`
		Messages []message `json:"messages"`
	}{model, append(said, message{User, t.query})})
}

// promptHistory picks what a model is told of the messages, given newest first: whole
// turns, oldest first, as many of the newest as fit. A turn without an answer is
// left out: a question that a model could not take would spoil all that follow.
func promptHistory(newestFirst []Message) []Message {
	var said []Message
	room := historyBytes
	for i := 0; i+1 < len(newestFirst); i++ {
		answer, asked := newestFirst[i], newestFirst[i+1]
		if answer.isQuestion() || !asked.isQuestion() || answer.Content == "" {
			continue
		}
		if room -= len(answer.Content) + len(asked.Content); room < 0 {
			break
		}
		said = append(said, answer, asked)
	}
	slices.Reverse(said)
	return said
}
