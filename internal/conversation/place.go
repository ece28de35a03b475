package conversation

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// place is where a conversation stands in the list of its owner: the time of its last message,
// as the first ten characters of an id that was made then, and the id of the conversation. So
// places sort by time.
//
// A conversation has a place row, in the list of the owner, and a pointer row with the same id
// under the conversation, from which a question learns the place. A question replaces both. The
// first end of its job moves both, to the time of the answer. A later end, after a retry, finds
// no row at the time of the question and moves nothing.
type place string

// timeDigits is the length of the time in a place: 50 bits, of which an id has its time in the
// first 48.
const timeDigits = 10

// placeAt is the place of a conversation whose last message is of a time.
func placeAt(at time.Time, c ID) place {
	ms := uint64(at.UnixMilli())
	u := job.UUID{6: 0x70} // the version, whose first bits are in the last digit
	for i := range 6 {
		u[i] = byte(ms >> (8 * (5 - i)))
	}
	return place(u.Text("")[:timeDigits] + "_" + c.String())
}

// parsePlace parses a place, which is also the cursor of a list. ok is false for any other text.
func parsePlace(text string) (c ID, ok bool) {
	digits, id, _ := strings.Cut(text, "_")
	c, err := ParseID(id)
	return c, err == nil && len(digits) == timeDigits && !place(text).time().IsZero()
}

// time is the time of a place; zero where it has none.
func (p place) time() time.Time {
	digits, _, _ := strings.Cut(string(p), "_")
	u, ok := job.ParseUUID("", digits+strings.Repeat("0", len(job.UUID{}.Text(""))-timeDigits))
	if !ok {
		return time.Time{}
	}
	return u.Time()
}

// kindPlace is the kind of place rows. They have no parent. Their body has what a list shows, so
// that one read lists conversations. kindPointer is the kind of pointer rows, whose parent is the
// conversation.
const (
	kindPlace   = "conversation_place"
	kindPointer = "conversation_pointer"
)

// rowsAt are the rows that put the conversation at a place. It has no place before.
func (c Conversation) rowsAt(owner job.Owner, at place) []store.Row {
	return []store.Row{
		{Owner: owner, Kind: kindPlace, ID: string(at), Body: encode(conversationRow{c.Title, c.Name})},
		{Owner: owner, Kind: kindPointer, Parent: c.ID.String(), ID: string(at), Body: []byte("{}")},
	}
}

// rowsWithoutPlace are the rows that remove the conversation from its place.
func (c Conversation) rowsWithoutPlace(owner job.Owner) []store.Row {
	return []store.Row{
		{Owner: owner, Kind: kindPlace, ID: string(c.place), Action: store.Remove},
		{Owner: owner, Kind: kindPointer, Parent: c.ID.String(), Action: store.RemoveAll},
	}
}

// rowsOfMove are the rows that move a conversation from the time of its last question to that of
// the answer.
func rowsOfMove(owner job.Owner, c ID, asked, answered time.Time) []store.Row {
	from, to := string(placeAt(asked, c)), string(placeAt(answered, c))
	return []store.Row{
		{Owner: owner, Kind: kindPlace, ID: from, To: to, Action: store.Move},
		{Owner: owner, Kind: kindPointer, Parent: c.String(), ID: from, To: to, Action: store.Move},
	}
}

// withPlace reads the place of a conversation.
func (c *Conversations) withPlace(ctx context.Context, owner job.Owner, of Conversation) (Conversation, error) {
	rows, err := c.records.Rows(ctx, store.RowSet{Owner: owner, Kind: kindPointer, Parent: of.ID.String()}, store.RowPage{Limit: 1})
	if err == nil && len(rows) > 0 {
		of.place = place(rows[0].ID)
	}
	of.LastMessage = of.place.time()
	return of, err
}

// placesOf is the set of an owner's place rows.
func placesOf(owner job.Owner) store.RowSet {
	return store.RowSet{Owner: owner, Kind: kindPlace}
}

func decodePlace(r store.Row) (Conversation, error) {
	id, ok := parsePlace(r.ID)
	if !ok {
		return Conversation{}, damaged(r, nil)
	}
	var body conversationRow
	if err := json.Unmarshal(r.Body, &body); err != nil {
		return Conversation{}, damaged(r, err)
	}
	at := place(r.ID)
	return Conversation{id, body.Name, body.Title, at.time(), at}, nil
}
