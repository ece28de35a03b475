package conversation

import "time"

// SetNow sets the clock of deleted names.
func (c *Conversations) SetNow(now func() time.Time) { c.now = now }
