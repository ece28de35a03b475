package conversation

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// MaxName is the length of a client's own name for a conversation, in bytes.
const MaxName = 128

// KeepDeletedName is how long the name of a deleted conversation stays unknown before it may
// begin a new one.
const KeepDeletedName = 24 * time.Hour

// A name belongs to one owner. Its bytes count: two spellings of one text are two names. Each
// conversation that had the name is a use of it, numbered from 1, with a row. A question that
// begins a conversation inserts the row of the next use, so of two such questions at the same
// moment only one succeeds. A delete marks the row of the use, which stays for
// [KeepDeletedName]. The next use of the name removes it, or a later delete of the same owner.

// hasOwnForm reports whether a text has the form of the ids that this package makes.
func hasOwnForm(text string) bool {
	digits, ok := strings.CutPrefix(text, "conv_")
	return ok && len(digits) == len(job.UUID{}.Text("")) && strings.Trim(digits, "0123456789abcdefghjkmnpqrstvwxyz") == ""
}

// CheckName returns [job.Invalid] for a text that can name no conversation. An id that this
// package made is no name, and passes.
func CheckName(text string) error {
	if text == "/" {
		// In a path, net/http cannot tell the escaped "/" from a slash at the end.
		return job.Errorf(job.Invalid, "a conversation's id is not / alone: no address can name it")
	}
	if text == "" || len(text) > MaxName || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return job.Errorf(job.Invalid, "a conversation's id is printable text of 1 to %d bytes", MaxName)
	}
	return nil
}

// nameUse is one use of a name.
type nameUse struct {
	name         string
	number       int // 0: the name was never used, or not in a long time
	conversation ID
	deleted      place // of the conversation, at its delete; "" while the conversation exists
}

// kindName is the kind of the rows of uses. Their parent is the name.
const kindName = "conversation_name"

// nameRow is the body of the row of a use.
type nameRow struct {
	Conversation string `json:"conversation"`
	Deleted      place  `json:"deleted,omitempty"`
}

func (u nameUse) row(owner job.Owner, do store.Action) store.Row {
	r := store.Row{Owner: owner, Kind: kindName, Parent: u.name, ID: fmt.Sprintf("%09d", u.number), Action: do}
	if do != store.Require && do != store.Remove {
		r.Body = encode(nameRow{u.conversation.String(), u.deleted})
	}
	return r
}

func decodeName(r store.Row) (nameUse, error) {
	var body nameRow
	if err := json.Unmarshal(r.Body, &body); err != nil {
		return nameUse{}, damaged(r, err)
	}
	number, err := strconv.Atoi(r.ID)
	if err != nil {
		return nameUse{}, damaged(r, err)
	}
	id, err := ParseID(body.Conversation)
	if err != nil {
		return nameUse{}, damaged(r, err)
	}
	return nameUse{r.Parent, number, id, body.Deleted}, nil
}

// lastUse reads the last use of a name; its number is 0 where there is none.
func (c *Conversations) lastUse(ctx context.Context, owner job.Owner, name string) (nameUse, error) {
	of := store.RowSet{Owner: owner, Kind: kindName, Parent: name}
	rows, err := c.records.Rows(ctx, of, store.RowPage{Desc: true, Limit: 1})
	if err != nil || len(rows) == 0 {
		return nameUse{name: name}, err
	}
	return decodeName(rows[0])
}

// mayBegin reports whether the name may begin a conversation, although it had one.
func (u nameUse) mayBegin(now time.Time) bool {
	return u.number == 0 || u.deleted != "" && !now.Before(u.deleted.time().Add(KeepDeletedName))
}

// next is the use of the name for a new conversation.
func (u nameUse) next(id ID) nameUse {
	return nameUse{name: u.name, number: u.number + 1, conversation: id}
}

// rowsOfNext are the rows that take the name for a new conversation, after this use. They
// conflict, or a required row is missing, where another question took the name since u was read.
func (u nameUse) rowsOfNext(owner job.Owner, id ID) []store.Row {
	rows := []store.Row{u.next(id).row(owner, store.Insert)}
	if u.number > 0 {
		rows = append(rows, u.row(owner, store.Require), u.row(owner, store.Remove), u.deletedRow(owner, store.Remove))
	}
	return rows
}

// kindDeletedName is the kind of the rows that list deleted names, oldest first. They have no
// parent. They are there to be removed: see forgetNames.
const kindDeletedName = "conversation_deleted_name"

// deletedNameRow is the body of such a row.
type deletedNameRow struct {
	Name   string `json:"name"`
	Number int    `json:"number"`
}

func (u nameUse) deletedRow(owner job.Owner, do store.Action) store.Row {
	r := store.Row{Owner: owner, Kind: kindDeletedName, ID: string(u.deleted), Action: do}
	if do != store.Remove {
		r.Body = encode(deletedNameRow{u.name, u.number})
	}
	return r
}

// rowsOfDelete are the rows that mark the use as deleted. They also remove what is left of a few
// names whose time is over, so that the rows of an owner do not grow with every name.
func (c *Conversations) rowsOfDelete(ctx context.Context, owner job.Owner, conversation Conversation) ([]store.Row, error) {
	if conversation.Name == "" {
		return nil, nil
	}
	u, err := c.lastUse(ctx, owner, conversation.Name)
	if err != nil || u.conversation != conversation.ID || u.deleted != "" {
		return nil, err // deleted by another request since
	}
	now := c.now()
	u.deleted = placeAt(now, u.conversation)
	rows, err := c.forgetNames(ctx, owner, now)
	return append(rows, u.row(owner, store.Update), u.deletedRow(owner, store.Put)), err
}

// forgetNames returns the rows that remove the oldest deleted names whose time is over.
func (c *Conversations) forgetNames(ctx context.Context, owner job.Owner, now time.Time) (forget []store.Row, err error) {
	const most = 10
	rows, err := c.records.Rows(ctx, store.RowSet{Owner: owner, Kind: kindDeletedName}, store.RowPage{Limit: most})
	for _, r := range rows {
		var body deletedNameRow
		if err := json.Unmarshal(r.Body, &body); err != nil {
			return nil, damaged(r, err)
		}
		u := nameUse{name: body.Name, number: body.Number, deleted: place(r.ID)}
		if !u.mayBegin(now) {
			break
		}
		forget = append(forget, u.row(owner, store.Remove), u.deletedRow(owner, store.Remove))
	}
	return forget, err
}

// Resolve finds the owner's conversation with a public id: an id that this package made, or a
// client's own name. It returns [job.NotFound] for a name without a conversation. It does not
// check that a conversation with an id exists.
func (c *Conversations) Resolve(ctx context.Context, owner job.Owner, public string) (ID, error) {
	if hasOwnForm(public) {
		return ParseID(public)
	}
	if CheckName(public) != nil {
		return ID{}, unknown(public)
	}
	u, err := c.lastUse(ctx, owner, public)
	if err == nil && (u.number == 0 || u.deleted != "") {
		err = unknown(public)
	}
	return u.conversation, err
}
