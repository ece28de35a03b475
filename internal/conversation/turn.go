package conversation

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// The bounds of the history in a prompt: the newest messages within both.
const (
	historyMessages = 40
	historyBytes    = 128 << 10
)

// Turn is a question that is about to be asked: the rows to store with its job, and the prompt
// for the model.
type Turn struct {
	owner        job.Owner
	conversation Conversation
	isNew        bool    // the conversation is made by this turn
	setsTitle    bool    // this turn gives the conversation its title
	lastUse      nameUse // of the name of a new conversation
	number       int     // of the question
	query        string
	history      []Message
}

// Begin prepares a question to a conversation with a public id.
//
//   - "" starts a new conversation, with an id that Begin makes.
//   - An id that this package made must be a conversation of the owner, else Begin returns
//     [job.NotFound].
//   - Any other id is a name; see [CheckName]. A name that the owner has not used begins a new
//     conversation. The name of a deleted one is [job.NotFound] for [KeepDeletedName].
//
// Begin returns [job.TooLarge] when the conversation has MaxMessages messages.
func (c *Conversations) Begin(ctx context.Context, owner job.Owner, public, query string) (Turn, error) {
	t := Turn{owner: owner, number: 1, query: query}
	switch {
	case public == "":
		return t.asNew(nameUse{}), nil
	case hasOwnForm(public):
		id, err := ParseID(public)
		if err != nil {
			return Turn{}, err
		}
		return t.asFollowing(ctx, c, id)
	}
	if err := CheckName(public); err != nil {
		return Turn{}, err
	}
	use, err := c.lastUse(ctx, owner, public)
	switch {
	case err != nil:
		return Turn{}, err
	case use.mayBegin(c.now()):
		return t.asNew(use), nil
	case use.deleted != "":
		return Turn{}, job.Errorf(job.NotFound, "the conversation %s was deleted: a day later its id may begin a new one", job.Quote(public))
	default:
		return t.asFollowing(ctx, c, use.conversation)
	}
}

// asNew makes the turn the first one of a new conversation. The zero use gives it no name.
func (t Turn) asNew(use nameUse) Turn {
	t.conversation = newConversation(use.name, makeTitle(t.query))
	t.isNew, t.lastUse = true, use
	return t
}

// asFollowing makes the turn the next one of a conversation that exists.
func (t Turn) asFollowing(ctx context.Context, c *Conversations, id ID) (Turn, error) {
	earlier, err := c.newest(ctx, t.owner, id, historyMessages)
	if err != nil {
		return Turn{}, err
	}
	// The conversation is read after its messages. A question that is asked in between is not
	// among them, and so the submit of this turn is refused.
	if t.conversation, err = c.Get(ctx, t.owner, id); err != nil {
		return Turn{}, err
	}
	if t.conversation.Title == "" {
		t.conversation.Title, t.setsTitle = makeTitle(t.query), true
	}
	if len(earlier) > 0 {
		return t.asNext(earlier)
	}
	return t, nil
}

// asNext numbers the turn after the earlier messages, which are given newest first.
//
// While an answer is pending, no number is free. The turn then gets the number of the pending
// answer's question, so that its submit is refused with the row of that question. (A repeat of
// the submit that asked the question is not refused.) The submit is refused also when the
// answer ends before it, because the turn's history does not contain that answer.
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

// IsNew reports whether the turn begins a conversation. The submit of such a turn is refused with
// [job.Conflict] or [job.NotFound] only where another question took the conversation's name in
// the meantime: begin again then.
func (t Turn) IsNew() bool { return t.isNew }

// Refs are the references that the job must have, so that [AtEnd] finds its answer and
// [PublicIDOf] its conversation.
func (t Turn) Refs() []string {
	refs := []string{t.answer().String()}
	if name := t.conversation.Name; name != "" {
		refs = append(refs, namePrefix+name)
	}
	return refs
}

// namePrefix begins the reference of a job to the name of its conversation.
const namePrefix = "conversation "

// PublicIDOf returns the public id of the conversation that a job answers; "" for a job that
// belongs to none.
func PublicIDOf(j *job.Job) string {
	answer, ok := AnswerIDOf(j)
	if !ok {
		return ""
	}
	for _, ref := range j.Refs {
		if name, ok := strings.CutPrefix(ref, namePrefix); ok {
			return name
		}
	}
	return answer.Conversation.String()
}

func (t Turn) answer() MessageID { return MessageID{t.conversation.ID, t.number + 1} }

// Rows are the rows to store with the turn's job. The submit is refused with [job.Conflict] when
// the conversation is answering: [TaskOf] then finds the job in the body of the conflicting
// row. It is refused with [job.NotFound] when the conversation was deleted.
func (t Turn) Rows(task job.ID) []store.Row {
	asked := Message{ID: MessageID{t.conversation.ID, t.number}, Role: User, Task: task, Content: t.query}
	answer := pendingAnswer(t.answer(), task)
	rows := append(make([]store.Row, 0, 10), t.conversation.rowsAt(t.owner, placeAt(task.Time(), t.conversation.ID))...)
	if t.isNew {
		rows = append(rows, t.conversation.row(t.owner, store.Put))
		if t.conversation.Name != "" {
			rows = append(rows, t.lastUse.rowsOfNext(t.owner, t.conversation.ID)...)
		}
	} else {
		// A retry may have made an older answer pending since the turn began.
		none := store.Row{Owner: t.owner, Kind: kindAnswering, Parent: t.conversation.ID.String(), Action: store.RequireNone}
		rows = append(t.conversation.rowsWithoutPlace(t.owner), rows...)
		rows = append(rows, t.conversation.row(t.owner, store.Require), none)
	}
	if t.setsTitle {
		rows = append(rows, t.conversation.row(t.owner, store.Update))
	}
	return append(rows, asked.row(t.owner, store.Insert), answer.row(t.owner, store.Put), answer.answering(t.owner, store.Put))
}

// TaskOf returns the job that is writing an answer, from the body of a conflicting row; see
// [Turn.Rows].
func TaskOf(body []byte) (job.ID, bool) {
	var m answeringRow
	if json.Unmarshal(body, &m) != nil {
		return job.ID{}, false
	}
	id, err := job.ParseID(m.Task)
	return id, err == nil
}

// Prompt is the chat completions request for the question, with the history before it. model
// may be "".
func (t Turn) Prompt(model string) []byte {
	type message struct {
		Role    Role   `json:"role"`
		Content string `json:"content"`
	}
	messages := make([]message, 0, len(t.history)+1)
	for _, m := range t.history {
		messages = append(messages, message{m.Role, m.Content})
	}
	return encode(struct {
		Model    string    `json:"model,omitempty"`
		Messages []message `json:"messages"`
	}{model, append(messages, message{User, t.query})})
}

// promptHistory selects the messages for a prompt from those given, newest first: whole turns, as
// many of the newest as fit, in the order of the conversation. A turn without an answer is left
// out: a question that a model refused would make all later prompts fail too.
func promptHistory(newestFirst []Message) []Message {
	var history []Message
	left := historyBytes
	for i := 0; i+1 < len(newestFirst); i++ {
		answer, asked := newestFirst[i], newestFirst[i+1]
		if answer.isQuestion() || !asked.isQuestion() || answer.Content == "" {
			continue
		}
		if left -= len(answer.Content) + len(asked.Content); left < 0 {
			break
		}
		history = append(history, answer, asked)
	}
	slices.Reverse(history)
	return history
}
