package files

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

func open(t *testing.T, o Options) *Dir {
	t.Helper()
	d, err := Open(filepath.Join(t.TempDir(), "files"), o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// receive receives a file that must be accepted.
func receive(t *testing.T, s *Stage, name, text string) job.File {
	t.Helper()
	f, err := s.Receive(t.Context(), name, "text/plain", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// commitFiles stores a job's files.
func commitFiles(t *testing.T, d *Dir, names ...string) job.ID {
	t.Helper()
	s := d.Stage(job.NewID())
	for _, name := range names {
		receive(t, s, name, "of "+name)
	}
	if err := s.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s.ID()
}

// all lists every path under the root.
func all(t *testing.T, d *Dir) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(d.root, func(path string, _ os.DirEntry, err error) error {
		if path != d.root {
			rel, _ := filepath.Rel(d.root, path)
			paths = append(paths, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestReceiveStoresContent(t *testing.T) {
	t.Parallel()
	d := open(t, Options{})
	for _, size := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 3 * chunkSize} {
		text := strings.Repeat("x", size)
		s := d.Stage(job.NewID())
		f, err := s.Receive(t.Context(), "a.txt", "text/plain", iotest.HalfReader(strings.NewReader(text)))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte(text))
		if want := (job.File{Name: "a.txt", ContentType: "text/plain", Size: int64(size), SHA256: hex.EncodeToString(sum[:])}); f != want {
			t.Errorf("%d bytes are %+v", size, f)
		}
		if err := s.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		path := d.Path(s.ID(), f)
		if want := filepath.Join(d.root, s.ID().String(), "a.txt"); path != want || !filepath.IsAbs(path) {
			t.Errorf("it lies at %s, want %s", path, want)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != text {
			t.Errorf("of %d bytes %d are there, %v", size, len(got), err)
		}
	}
}

func TestPermissionsAreOwnerOnly(t *testing.T) {
	t.Parallel()
	d := open(t, Options{})
	id := commitFiles(t, d, "a")
	for path, want := range map[string]os.FileMode{d.root: 0o700, d.jobDir(id): 0o700, d.Path(id, job.File{Name: "a"}): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

// A file of any name is in its job's directory, and nothing else is.
func TestReceiveCleansNames(t *testing.T) {
	t.Parallel()
	for sent, want := range map[string]string{
		"scan.png":                      "scan.png",
		"Überweisung 3.pdf":             "Überweisung 3.pdf",
		"-rf":                           "-rf",
		"CON":                           "CON",
		"a:b":                           "a:b",
		"../../etc/passwd":              "passwd",
		`C:\Users\x\scan.png`:           "scan.png",
		"/etc/passwd":                   "passwd",
		"a/b\x00c":                      "bc",
		".bashrc":                       "bashrc",
		"...":                           "",
		"..":                            "",
		"":                              "",
		"dir/":                          "",
		"\x00":                          "",
		" \u202e.gpj ":                  "gpj",
		"a\nb\x1b[31m":                  "ab[31m",
		"bad\xff.png":                   "bad.png",
		"end. . ":                       "end",
		strings.Repeat("n", 255):        strings.Repeat("n", 255),
		strings.Repeat("n", 256):        "",
		strings.Repeat("../", 99) + "x": "x",
	} {
		d := open(t, Options{})
		s := d.Stage(job.NewID())
		f, err := s.Receive(t.Context(), sent, "", strings.NewReader("x"))
		if want == "" {
			if job.CodeOf(err) != job.Invalid || len(all(t, d)) != 0 {
				t.Errorf("%q: %v, %v", sent, err, all(t, d))
			}
			continue
		}
		if err != nil || f.Name != want {
			t.Errorf("%q became %q, %v", sent, f.Name, err)
		}
		if got := all(t, d); !slices.Equal(got, []string{s.ID().String(), filepath.Join(s.ID().String(), want)}) {
			t.Errorf("%q lies at %q", sent, got)
		}
	}
}

func TestReceiveRefusals(t *testing.T) {
	t.Parallel()
	broken := errors.New("the connection was cut")
	for rule, tt := range map[string]struct {
		options Options
		before  []string // files received before, of a byte each
		name    string
		from    io.Reader
		code    job.Code
	}{
		"a file that is too large":                  {Options{MaxFile: 10}, nil, "a", strings.NewReader("12345678901"), job.TooLarge},
		"files that are too large together":         {Options{MaxFile: 10}, []string{"1234567890", "123456789"}, "c", strings.NewReader("12"), job.TooLarge},
		"one file too many":                         {Options{}, slices.Repeat([]string{"x"}, job.MaxFiles), "c", strings.NewReader("x"), job.TooLarge},
		"two files with one name":                   {Options{}, []string{"x"}, "../f0", strings.NewReader("x"), job.Invalid},
		"a full disk":                               {Options{KeepFree: 1 << 60}, nil, "a", strings.NewReader("x"), job.NoSpace},
		"too many staged bytes":                     {Options{MaxStaged: 10}, []string{"123456"}, "a", strings.NewReader("12345"), job.Overloaded},
		"a broken connection":                       {Options{}, nil, "a", io.MultiReader(strings.NewReader("some"), iotest.ErrReader(broken)), job.Internal},
		"an unexpected end":                         {Options{}, nil, "a", io.MultiReader(strings.NewReader("some"), iotest.ErrReader(io.ErrUnexpectedEOF)), job.Internal},
		"a broken connection at the end of a chunk": {Options{}, nil, "a", io.MultiReader(bytes.NewReader(make([]byte, chunkSize)), iotest.ErrReader(broken)), job.Internal},
	} {
		t.Run(rule, func(t *testing.T) {
			d := open(t, tt.options)
			s := d.Stage(job.NewID())
			for i, text := range tt.before {
				receive(t, s, fmt.Sprint("f", i), text)
			}
			_, err := s.Receive(t.Context(), tt.name, "", tt.from)
			if job.CodeOf(err) != tt.code || tt.code == job.Internal && !errors.Is(err, broken) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("refused with %q, %v", job.CodeOf(err), err)
			}
			s.Discard()
			if left := all(t, d); len(left) != 0 || d.staged != 0 {
				t.Errorf("left are %v and %d staged bytes", left, d.staged)
			}
		})
	}
}

func TestReceiveStopsWithContext(t *testing.T) {
	t.Parallel()
	d := open(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := d.Stage(job.NewID())
	if _, err := s.Receive(ctx, "a", "", strings.NewReader("x")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	s.Discard()
}

// A write that the disk refuses is not an internal error, and no bytes stay counted.
func TestReceiveWithoutDirectoryIsUnavailable(t *testing.T) {
	t.Parallel()
	d := open(t, Options{})
	if err := os.Remove(d.root); err != nil {
		t.Fatal(err)
	}
	s := d.Stage(job.NewID())
	if _, err := s.Receive(t.Context(), "a", "", strings.NewReader("x")); job.CodeOf(err) != job.Unavailable {
		t.Error(err)
	}
	s.Discard()
}

// Committed files no longer count as staged, and a discard after the commit changes nothing.
func TestCommitEndsStaging(t *testing.T) {
	t.Parallel()
	d := open(t, Options{MaxStaged: 10})
	for range 3 {
		s := d.Stage(job.NewID())
		f := receive(t, s, "a", "1234567")
		if err := s.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.Discard()
		if file, err := d.Open(t.Context(), s.ID(), f); err != nil {
			t.Error(err)
		} else {
			file.Close()
		}
	}
}

// A crash between the commit of files and of their job leaves a directory. The next start
// removes it, and nothing else.
func TestSweepRemovesOrphans(t *testing.T) {
	t.Parallel()
	before := open(t, Options{})
	var stored []job.ID
	for range 5 {
		stored = append(stored, commitFiles(t, before, "a"))
	}
	orphan := commitFiles(t, before, "a", "b")
	half := before.Stage(job.NewID())
	receive(t, half, "c", "x")
	if err := os.Mkdir(filepath.Join(before.root, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	for time := half.ID().Time(); !job.NewID().Time().After(time); { // the next start is later
	}

	d, err := Open(before.root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for time := d.opened; !job.NewID().Time().After(time); {
	}
	younger := commitFiles(t, d, "d")
	pages := 0
	removed, err := d.Sweep(t.Context(), func(_ context.Context, after string, limit int) ([]job.ID, string, error) {
		from := 2 * pages
		if after != strings.Repeat("x", pages) {
			t.Errorf("page %d is asked for after %q", pages, after)
		}
		if pages++; from+2 >= len(stored) {
			return stored[from:], "", nil
		}
		return stored[from : from+2], after + "x", nil
	})
	if err != nil || removed != 2 || pages != 3 {
		t.Errorf("removed %d in %d pages, %v", removed, pages, err)
	}
	left := all(t, d)
	for _, id := range append(stored, younger) {
		if !slices.Contains(left, id.String()) {
			t.Errorf("%s is gone", id)
		}
	}
	if slices.Contains(left, orphan.String()) || slices.Contains(left, half.ID().String()) || !slices.Contains(left, "lost+found") {
		t.Errorf("left are %v", left)
	}
	if removed, err := d.Sweep(t.Context(), func(context.Context, string, int) ([]job.ID, string, error) { return stored, "", nil }); removed != 0 || err != nil {
		t.Errorf("a second sweep: %d, %v", removed, err)
	}
}

// size returns the size of d.
func size(t *testing.T, d *Dir) int64 {
	t.Helper()
	n, err := d.Size(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The size counts files of this and of earlier processes, from their commit until their removal.
func TestSizeCountsFilesOfJobs(t *testing.T) {
	t.Parallel()
	before := open(t, Options{TrackSize: true})
	var stored []job.ID
	for range 3 {
		stored = append(stored, commitFiles(t, before, "a", "b")) // of 4 bytes each
	}
	commitFiles(t, before, "c")
	for time := stored[2].Time(); !job.NewID().Time().After(time); { // the next start is later
	}
	d, err := Open(before.root, Options{TrackSize: true})
	if err != nil {
		t.Fatal(err)
	}
	for time := d.opened; !job.NewID().Time().After(time); {
	}
	if _, err := d.Sweep(t.Context(), func(context.Context, string, int) ([]job.ID, string, error) { return stored, "", nil }); err != nil {
		t.Fatal(err)
	}
	d.Remove(stored[0]) // before it was counted
	s := d.Stage(job.NewID())
	receive(t, s, "d", "ten bytes.")
	for _, step := range []struct {
		does string
		do   func()
		size int64
	}{
		{"files of an earlier process count, a stage does not", func() {}, 16},
		{"committed files count", func() { s.Commit(t.Context()) }, 26},
		{"discarded files do not count", func() {
			s := d.Stage(job.NewID())
			receive(t, s, "e", "no")
			s.Discard()
		}, 26},
		{"a stage without files has no size", func() { d.Stage(job.NewID()).Commit(t.Context()) }, 26},
		{"removed files no longer count, even if they are not counted yet", func() { d.Remove(stored[1], s.ID()) }, 8},
		{"a second remove changes nothing", func() { d.Remove(stored[1], s.ID(), job.NewID()) }, 8},
		{"after the last remove the size is 0", func() { d.Remove(stored[2]) }, 0},
	} {
		step.do()
		if got := size(t, d); got != step.size {
			t.Errorf("%s: the size is %d, want %d", step.does, got, step.size)
		}
	}
	if left := all(t, d); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

// A call whose context ends returns an error, not a wrong size. The next call continues.
func TestSizeContinuesAfterCancel(t *testing.T) {
	t.Parallel()
	before := open(t, Options{})
	ids := []job.ID{commitFiles(t, before, "a"), commitFiles(t, before, "b")}
	for time := ids[1].Time(); !job.NewID().Time().After(time); {
	}
	d, err := Open(before.root, Options{TrackSize: true})
	if err == nil {
		_, err = d.Sweep(t.Context(), func(context.Context, string, int) ([]job.ID, string, error) { return ids, "", nil })
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := d.Size(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%d, %v", n, err)
	}
	if n := size(t, d); n != 8 {
		t.Errorf("the size is %d", n)
	}
}

// When the jobs cannot be listed, no file is removed.
func TestSweepWithoutListRemovesNothing(t *testing.T) {
	t.Parallel()
	before := open(t, Options{})
	id := commitFiles(t, before, "a")
	for time := id.Time(); !job.NewID().Time().After(time); {
	}
	d, err := Open(before.root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	away := errors.New("away")
	if _, err := d.Sweep(t.Context(), func(context.Context, string, int) ([]job.ID, string, error) { return nil, "", away }); !errors.Is(err, away) {
		t.Error(err)
	}
	if left := all(t, d); len(left) != 2 {
		t.Errorf("left are %v", left)
	}
}

func TestRemoveLeavesNothing(t *testing.T) {
	t.Parallel()
	d := open(t, Options{})
	first, second, stays := commitFiles(t, d, "a"), commitFiles(t, d, "b"), commitFiles(t, d, "c")
	d.Remove(first, job.NewID(), second)
	if left := all(t, d); !slices.Equal(left, []string{stays.String(), filepath.Join(stays.String(), "c")}) {
		t.Errorf("left are %v", left)
	}
	if _, err := d.Open(t.Context(), first, job.File{Name: "a"}); job.CodeOf(err) != job.NotFound {
		t.Error(err)
	}
}

// A file is never in memory as a whole.
func TestReceiveUsesLittleMemory(t *testing.T) {
	const size = 64 << 20
	d := open(t, Options{})
	s := d.Stage(job.NewID())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f, err := s.Receive(t.Context(), "large", "", io.LimitReader(zeros{}, size))
	runtime.ReadMemStats(&after)
	if err != nil || f.Size != size {
		t.Fatalf("%d bytes, %v", f.Size, err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 8<<20 {
		t.Errorf("it took %d bytes of memory", took)
	}
	s.Discard()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// Parallel uploads leave KeepFree: the reserved bytes of each count for all.
func TestParallelUploadsLeaveFreeSpace(t *testing.T) {
	t.Parallel()
	const space = 3 * chunkSize
	d, err := Open(t.TempDir(), Options{KeepFree: 1 << 20, Free: func() (int64, bool) { return 1<<20 + space, true }})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 4 {
		if err := d.reserve(chunkSize); (job.CodeOf(err) == job.NoSpace) != (n == 3) {
			t.Errorf("chunk %d before any is written: %v", n+1, err)
		}
	}
	d.unreserve(chunkSize) // from now on the disk itself reports these bytes as used
	if err := d.reserve(chunkSize); err != nil {
		t.Errorf("after a chunk is written: %v", err)
	}
}
