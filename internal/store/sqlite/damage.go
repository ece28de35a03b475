package sqlite

// sound says whether what is on the disk can be trusted.
func (s *Store) sound() bool { return !s.syncer.failed() }
