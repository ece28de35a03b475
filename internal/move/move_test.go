package move

import (
	"bufio"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/pgtest"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/postgres"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// saveBytes lets a small installation be stored in many transactions.
const saveBytes = 20_000

var tokenKeys = [][]byte{[]byte("an older key"), []byte("a newer key")}

// begin opens the source and the import.
func (in *installation) begin(d pgtest.Database, o postgres.ImportOptions) (*postgres.Import, Source, error) {
	return in.beginAt(d.URL(), o)
}

func (in *installation) beginAt(url string, o postgres.ImportOptions) (*postgres.Import, Source, error) {
	s, err := sqlite.OpenSnapshot(context.Background(), in.path(), in.now, nil)
	if err != nil {
		in.tb.Fatal(err)
	}
	in.tb.Cleanup(func() { _ = s.Close() })
	state, err := s.State()
	if err != nil {
		in.tb.Fatal(err)
	}
	o.SaveBytes = cmp.Or(o.SaveBytes, saveBytes)
	to, err := postgres.OpenImport(context.Background(), url, postgres.Source{State: state, Place: in.dir}, o)
	if err == nil {
		in.tb.Cleanup(to.Close)
	}
	return to, Source{Snapshot: s, Files: in.files(), TokenKeys: tokenKeys}, err
}

// move copies the rest of the installation, and ends the import.
func (in *installation) move(d pgtest.Database) Copied {
	in.tb.Helper()
	return in.moveTo(d.URL(), postgres.ImportOptions{})
}

func (in *installation) moveTo(url string, o postgres.ImportOptions) Copied {
	in.tb.Helper()
	to, from, err := in.beginAt(url, o)
	if err != nil {
		in.tb.Fatal(err)
	}
	copied, err := Copy(context.Background(), from, to, func(Report) {})
	if err == nil && !to.Done() {
		err = to.End(context.Background())
	}
	if err != nil {
		in.tb.Fatal(err)
	}
	return copied
}

// wantMoved compares the database with the installation.
func (in *installation) wantMoved(t *testing.T, d pgtest.Database) {
	t.Helper()
	in.open()
	defer in.close()
	s, err := postgres.Open(t.Context(), d.URL(), postgres.Options{Clock: func() time.Time { return in.now }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	wantSame(t, in.readAll(in.store), in.readAll(s))

	// Both go on in the same way: deletes are remembered, and the jobs come in the same order.
	for _, claims := range []string{"a", "b", "c", "a", "c"} {
		var ids [2]string
		for i, st := range []store.Store{in.store, s} {
			in.now = in.now.Add(time.Duration(1-i) * time.Minute)
			b := store.NewBatch()
			b.Limits = in.limits
			c := &store.Claim{Queue: claims, LeaseFor: time.Minute, Worker: "next", Tokens: newTokens(8)}
			due := &store.Due{Limit: 1000}
			deletes := []*store.Delete{}
			for _, of := range in.deleted {
				deletes = append(deletes, &store.Delete{Owner: of.Owner, ID: of.ID})
			}
			b.Dues, b.Claims, b.Deletes = []*store.Due{due}, []*store.Claim{c}, deletes
			if err := store.Commit(t.Context(), st, b); err != nil {
				t.Fatal(err)
			}
			for _, op := range deletes {
				ids[i] += fmt.Sprint(op.Err)
			}
			for i2 := range c.Claimed {
				ids[i] += " " + c.Claimed[i2].Job.ID.String()
			}
		}
		if ids[0] != ids[1] {
			t.Errorf("a claim of %s gets\n%s, want\n%s", claims, ids[1], ids[0])
		}
	}
}

func TestEverythingIsMoved(t *testing.T) {
	t.Parallel()
	in := newInstallation(t, rand.Uint64(), 600)
	d := newDatabase(t)
	copied := in.move(d)
	if copied.Jobs < 400 || copied.Bytes < 500_000 || len(copied.Lost) > 0 {
		t.Errorf("%+v", copied)
	}
	for table, sum := range copied.Sums {
		if sum.Rows == 0 {
			t.Errorf("nothing of the table %s was moved: the installation lacks such rows", table)
		}
	}
	if tables := len(copied.Sums); tables != 16 {
		t.Errorf("rows of %d tables were moved", tables)
	}
	conn := d.Connect(t)
	keys, err := postgres.TokenKeys(t.Context(), conn)
	if err != nil || len(keys) != 2 || string(keys[0])+string(keys[1]) != "an older keya newer key" {
		t.Errorf("%q %v", keys, err)
	}
	wrong := 0
	err = conn.QueryRow(t.Context(), `select count(*) from files f where state <> 1
		or sha256 <> sha256(coalesce((select string_agg(data, '' order by n) from file_chunks c where c.file = f.id), ''))`).Scan(&wrong)
	if err != nil || wrong > 0 {
		t.Errorf("%d files differ; %v", wrong, err)
	}
	in.wantMoved(t, d)
}

// A pooler that gives every transaction another connection, and knows no prepared statements, changes
// nothing.
func TestMoveThroughTransactionPooler(t *testing.T) {
	t.Parallel()
	in := newInstallation(t, rand.Uint64(), 200)
	d := pgtest.Shared(t).Database(t)
	if _, err := postgres.Up(t.Context(), d.Connect(t)); err != nil {
		t.Fatal(err)
	}
	copied := in.moveTo(d.Pooler(t), postgres.ImportOptions{Unprepared: true})
	if copied.Jobs < 100 || len(copied.Lost) > 0 {
		t.Errorf("%+v", copied)
	}
	in.wantMoved(t, d)
}

// A file that is missing or has changed is reported. Its job is moved without it.
func TestLostFileIsReported(t *testing.T) {
	t.Parallel()
	pgtest.InShort(t)
	in := newInstallation(t, 7, 60)
	dirs, err := os.ReadDir(in.files())
	if err != nil || len(dirs) < 3 {
		t.Fatal(len(dirs), err)
	}
	in.open()
	stored, _, err := in.store.WithFiles(t.Context(), "", 100)
	in.close()
	if err != nil || len(stored) < 2 {
		t.Fatal(len(stored), err)
	}
	errs := errors.Join(os.Remove(in.files()+"/"+stored[0].String()+"/a.txt"),
		os.WriteFile(in.files()+"/"+stored[1].String()+"/ü b.bin", []byte("changed"), 0o600))
	if errs != nil {
		t.Fatal(errs)
	}
	d := pgtest.Shared(t).Schema(t)
	if _, err := postgres.Up(t.Context(), d.Connect(t)); err != nil {
		t.Fatal(err)
	}
	copied := in.move(d)
	if len(copied.Lost) != 2 || copied.Lost[0] != stored[0] || copied.Lost[1] != stored[1] {
		t.Errorf("%v, want %v", copied.Lost, stored[:2])
	}
	if again := in.move(d); len(again.Lost) != 2 || again.Jobs != 0 {
		t.Errorf("%+v", again)
	}
}

func TestImportRefusesOccupiedDatabase(t *testing.T) {
	if testing.Short() {
		t.Skip("moves several times")
	}
	t.Parallel()
	one, other := newInstallation(t, 1, 30), newInstallation(t, 2, 30)
	d := newDatabase(t)
	one.move(d)
	for _, restart := range []bool{false, true} {
		if _, _, err := other.begin(d, postgres.ImportOptions{Restart: restart}); !errors.Is(err, postgres.ErrOccupied) {
			t.Errorf("restart %v: %v", restart, err)
		}
	}
	one.wantMoved(t, d)
}

// While an import has not ended, no store opens the database, and one that was open before can
// change nothing. Another source is refused, unless it begins anew.
func TestUnfinishedImportKeepsOthersOut(t *testing.T) {
	t.Parallel()
	one, other := newInstallation(t, 1, 100), newInstallation(t, 2, 100)
	d := newDatabase(t)
	before, err := postgres.Open(t.Context(), d.URL(), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = before.Close() }()
	to, from, err := one.begin(d, postgres.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	if _, err := Copy(ctx, from, to, func(r Report) { stop() }); err == nil {
		t.Fatal("it was not interrupted")
	}
	if _, err := postgres.Open(t.Context(), d.URL(), postgres.Options{}); !errors.Is(err, postgres.ErrImporting) {
		t.Errorf("opening: %v", err)
	}
	b := store.NewBatch()
	b.Add(&store.Pause{Queue: "a", Paused: true})
	if err := store.Commit(t.Context(), before, b); !errors.Is(err, postgres.ErrImporting) || !errors.Is(err, store.ErrNotCommitted) {
		t.Errorf("a store that was open before: %v", err)
	}
	if _, _, err := other.begin(d, postgres.ImportOptions{}); !errors.Is(err, postgres.ErrImportFromElsewhere) {
		t.Errorf("another source: %v", err)
	}
	if to, from, err = other.begin(d, postgres.ImportOptions{Restart: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := Copy(t.Context(), from, to, func(Report) {}); err != nil {
		t.Fatal(err)
	}
	if err := to.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	other.wantMoved(t, d)
	if counts, err := before.Counts(t.Context()); err != nil || counts["d"].Queued == 0 || !counts["d"].Paused {
		t.Errorf("the store that was open before: %v, %v", counts, err)
	}
}

// A difference between the copy and what was read is found.
func TestCopyIsCompared(t *testing.T) {
	if testing.Short() {
		t.Skip("moves several times")
	}
	t.Parallel()
	for _, change := range []string{
		"update inputs set body = body || 'x' where n = (select min(n) from inputs)", "delete from output where n = (select max(n) from output)",
		"update jobs set turn = turn + 1 where n = (select max(n) from jobs where lane is not null)", "update ended set expires = expires - 1 where n = (select max(n) from ended)",
	} {
		in := newInstallation(t, 5, 40)
		d := pgtest.Shared(t).Schema(t)
		conn := d.Connect(t)
		if _, err := postgres.Up(t.Context(), conn); err != nil {
			t.Fatal(err)
		}
		to, from, err := in.begin(d, postgres.ImportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = Copy(t.Context(), from, to, func(r Report) {
			if r.Table == "inputs" {
				if tag, err := conn.Exec(t.Context(), change); err != nil || tag.RowsAffected() == 0 {
					t.Errorf("%s: %v %v", change, tag, err)
				}
			}
		})
		if !errors.Is(err, ErrDiffers) {
			t.Errorf("%s: %v", change, err)
		}
	}
}

// A move whose connection is lost at any point is continued by the next one, and nothing is there
// twice.
func TestMoveGoesOnAfterLostConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("moves several times")
	}
	t.Parallel()
	in := newInstallation(t, rand.Uint64(), 400)
	d := newDatabase(t)
	interrupted := 0
	for {
		to, from, err := in.begin(d, postgres.ImportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		kill := rand.IntN(12)
		_, err = Copy(t.Context(), from, to, func(Report) {
			if kill--; kill == 0 {
				d.KillBackends(t)
			}
		})
		if err == nil {
			err = to.End(t.Context())
		}
		if err == nil {
			break
		}
		if interrupted++; interrupted > 200 {
			t.Fatal(err)
		}
	}
	if interrupted == 0 {
		t.Error("it was never interrupted")
	}
	in.wantMoved(t, d)
}

// copyingVariable makes the test program a process that moves an installation.
const copyingVariable = "MEANWHILE_TEST_MOVES"

// A move whose process is killed at any point is continued by the next one.
func TestMoveGoesOnAfterKill(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	in := newInstallation(t, rand.Uint64(), 400)
	d := newDatabase(t)
	killed := 0
	for lines := 3; ; lines += 1 + rand.IntN(5) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestMovingProcess$")
		cmd.Env = append(os.Environ(), copyingVariable+"="+d.URL()+" "+in.dir+" "+strconv.FormatInt(in.now.UnixMicro(), 10))
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		read, done := bufio.NewScanner(out), false
		for n := 0; read.Scan(); n++ {
			if done = done || read.Text() == "moved"; n == lines && !done {
				_ = cmd.Process.Kill()
			}
		}
		if err := cmd.Wait(); err == nil && done {
			break
		}
		if killed++; killed > 100 {
			t.Fatal("it does not come to an end")
		}
	}
	if killed == 0 {
		t.Error("it was never killed")
	}
	in.wantMoved(t, d)
}

// TestMovingProcess is the process of TestMoveGoesOnAfterKill.
func TestMovingProcess(t *testing.T) {
	var url, dir string
	var now int64
	if n, _ := fmt.Sscan(os.Getenv(copyingVariable), &url, &dir, &now); n != 3 {
		t.Skip("it is for another test")
	}
	s, err := sqlite.OpenSnapshot(t.Context(), dir+"/jobs.db", time.UnixMicro(now), nil)
	if err != nil {
		t.Fatal(err)
	}
	state, err := s.State()
	if err != nil {
		t.Fatal(err)
	}
	to, err := postgres.OpenImport(t.Context(), url, postgres.Source{State: state, Place: dir}, postgres.ImportOptions{SaveBytes: saveBytes})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Copy(t.Context(), Source{Snapshot: s, Files: dir + "/files", TokenKeys: tokenKeys}, to, func(r Report) { fmt.Println("\n" + hex.EncodeToString([]byte(r.Table))) })
	if err == nil {
		err = to.End(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("moved")
}
