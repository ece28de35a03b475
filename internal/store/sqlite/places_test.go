package sqlite

import (
	"fmt"
	"io/fs"
	"slices"
	"testing"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// In an older database, conversations have no place in the list of their owner.
func TestMigrationPlacesConversations(t *testing.T) {
	t.Parallel()
	conn, err := sqlite.OpenConn(":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	if err := addFunctions(conn); err != nil {
		t.Fatal(err)
	}
	at := slices.Index(names, "migrations/0014_conversation_places.sql")
	for i, name := range names[:at] {
		if err := applyMigration(conn, name, i+1); err != nil {
			t.Fatal(name, err)
		}
	}
	id := func(first string) string { return first + "0000000000000000"[:26-len(first)] }
	put := func(user, kind, parent, id, body string) {
		t.Helper()
		if err := sqlitex.Execute(conn, "INSERT INTO records VALUES ('t', ?, ?, ?, ?, ?)", &sqlitex.ExecOptions{Args: []any{user, kind, parent, id, []byte(body)}}); err != nil {
			t.Fatal(err)
		}
	}
	asked, empty, damaged := "conv_"+id("0aaaaaaaaa1"), "conv_"+id("0bbbbbbbbb1"), "conv_"+id("0ccccccccc1")
	put("ann", "conversation", "", asked, `{"title":"asked"}`)
	put("ann", "message", asked, "msg_1", `{"task":"job_`+id("0ddddddddd1")+`"}`)
	put("ann", "message", asked, "msg_2", `{"task":"job_`+id("0eeeeeeeee1")+`"}`)
	put("bob", "message", asked, "msg_3", `{"task":"job_`+id("0fffffffff1")+`"}`) // of another owner
	put("ann", "conversation", "", empty, `{}`)
	put("bob", "conversation", "", damaged, `{"title":"damaged"}`)
	put("bob", "message", damaged, "msg_1", `{"task":`)

	if err := applyMigration(conn, names[at], at+1); err != nil {
		t.Fatal(err)
	}
	var got []string
	err = sqlitex.Execute(conn, `SELECT usr, kind, parent, id, CAST(body AS TEXT) FROM records WHERE kind IN ('conversation_place', 'conversation_pointer') ORDER BY usr, kind, parent, id`,
		&sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
			got = append(got, fmt.Sprint(s.ColumnText(0), " ", s.ColumnText(1), " ", s.ColumnText(2), " ", s.ColumnText(3), " ", s.ColumnText(4)))
			return nil
		}})
	want := []string{
		"ann conversation_place  0bbbbbbbbb_" + empty + " {}",
		"ann conversation_place  0eeeeeeeee_" + asked + ` {"title":"asked"}`,
		"ann conversation_pointer " + asked + " 0eeeeeeeee_" + asked + " {}",
		"ann conversation_pointer " + empty + " 0bbbbbbbbb_" + empty + " {}",
		"bob conversation_place  0ccccccccc_" + damaged + ` {"title":"damaged"}`,
		"bob conversation_pointer " + damaged + " 0ccccccccc_" + damaged + " {}",
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("the rows are %q, %v, want %q", got, err, want)
	}
}
