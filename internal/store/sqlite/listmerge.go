package sqlite

import "github.com/meanwhile-run/meanwhile/internal/job"

// maxRead is how many entries the sources of a merge read at a time, together.
const maxRead = 128

// idSource yields the entries of one group of an index, newest first. It reads a few at a time,
// so that any number of groups needs one statement.
type idSource struct {
	list   []indexEntry // read and not yet taken
	more   bool         // the index may have entries behind list
	bind   func(b idBounds, limit int) *query
	bounds idBounds // of the entries that are not read yet
	// size is how many entries the next read asks for. It grows up to maxSize, and begins again
	// with one after a skip: of two sources that skip each other's entries, few are taken.
	size, maxSize int
}

// head returns the next entry, which stays.
func (s *idSource) head() (c indexEntry, ok bool, err error) {
	if len(s.list) == 0 && s.more {
		err = s.bind(s.bounds, s.size).each(func(c column) error {
			s.list = append(s.list, indexEntry{c.id(0), c.int(1)})
			return nil
		})
		s.more = len(s.list) == s.size
		s.size = min(2*s.size, s.maxSize)
	}
	if err != nil || len(s.list) == 0 {
		return c, false, err
	}
	s.bounds.before = s.list[len(s.list)-1].id
	return s.list[0], true, nil
}

func (s *idSource) skipTo(id job.ID) {
	for len(s.list) > 0 && compareIDs(s.list[0].id, id) > 0 {
		s.list = s.list[1:]
	}
	if above := next(id); len(s.list) == 0 && compareIDs(above, s.bounds.before) < 0 {
		s.bounds.before, s.size = above, 1
	}
}

// next returns the id after an id.
func next(id job.ID) job.ID {
	for i := len(id) - 1; i >= 0; i-- {
		if id[i]++; id[i] != 0 {
			return id
		}
	}
	return maxID
}

// merge yields the candidates of several sources, newest first.
type merge struct{ sources []*idSource }

func (m *merge) next() (newest indexEntry, more bool, err error) {
	var from *idSource
	kept := m.sources[:0]
	for _, s := range m.sources {
		c, ok, err := s.head()
		if err != nil {
			return newest, false, err
		}
		if !ok {
			continue // the source is empty for good
		}
		kept = append(kept, s)
		if from == nil || compareIDs(c.id, newest.id) > 0 {
			newest, from = c, s
		}
	}
	m.sources = kept
	if from == nil {
		return newest, false, nil
	}
	from.list = from.list[1:]
	return newest, true, nil
}

func (m *merge) skipTo(id job.ID) {
	for _, s := range m.sources {
		s.skipTo(id)
	}
}

// intersection yields the candidates that two merges have in common. It skips in each one what
// the other does not have.
type intersection struct {
	a, b    *merge
	visited *int
}

func (x *intersection) next() (c indexEntry, more bool, err error) {
	c, more, err = x.a.next()
	for other := x.b; more && err == nil; {
		other.skipTo(c.id)
		found, ok, err := other.next()
		if err != nil || !ok {
			return found, false, err
		}
		if found == c {
			return c, true, nil
		}
		*x.visited++
		if *x.visited >= maxVisited {
			return found, true, nil
		}
		c = found
		if other == x.b {
			other = x.a
		} else {
			other = x.b
		}
	}
	return c, more, err
}
