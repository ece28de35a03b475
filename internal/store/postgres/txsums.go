package postgres

import (
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

var (
	selectTally = &statement{"select_tally", `select scheduled, queued, parked, running, succeeded, failed, cancelled, expired, retried, waiting_bytes
		from tallies where tenant = $1::text and usr = $2::text and name = $3::text`}
	selectKept = &statement{"select_kept", "select u.*, k.* from " + unnest("tt") + " u (t, o) cross join lateral (" +
		"select bytes from owners where tenant = t and usr = o offset 0) k"}
	selectAbandoned = &statement{"select_abandoned", "select until <= $2::bigint from presence where id = $1::uuid for update"}
)

// scanCounts reads the counts in the order of the columns of tallies and queues.
func scanCounts(r *record) job.Counts {
	return job.Counts{
		Scheduled: r.int(), Queued: r.int(), Parked: r.int(), Running: r.int(), Succeeded: r.int(),
		Failed: r.int(), Cancelled: r.int(), Expired: r.int(), Retried: r.int(), WaitingBytes: r.int(),
	}
}

// addTallies adds the read of a tally.
func (t *tx) addTally(of ops.Tally) {
	c := &job.Counts{}
	t.side.tallies[of] = c
	t.reads.add(selectTally, func(r *record) { *c = scanCounts(r) }, []byte(of.Owner.Tenant), []byte(of.Owner.User), []byte(of.Name))
}

// TallyCounts reads a tally as it was before the batch; see [ops.SumTx].
func (t *tx) TallyCounts(of ops.Tally) (job.Counts, error) {
	if t.side.tallies[of] == nil {
		t.addTally(of)
		if err := t.read(); err != nil {
			return job.Counts{}, err
		}
	}
	return *t.side.tallies[of], nil
}

// AddToTally adds to a tally; see [ops.SumTx].
func (t *tx) AddToTally(of ops.Tally, c *ops.TallyChange) error {
	t.out.tallies.text(of.Owner.Tenant).text(of.Owner.User).text(of.Name).int(c.Rows).
		int(c.Scheduled).int(c.Queued).int(c.Parked).int(c.Running).int(c.Succeeded).int(c.Failed).int(c.Cancelled).int(c.Expired).
		int(c.Retried).int(c.WaitingBytes)
	if c.Removed {
		t.out.emptyTallies.text(of.Owner.Tenant).text(of.Owner.User).text(of.Name)
	}
	return nil
}

// addKept adds the read of the bytes that owners keep.
func (t *tx) addKept(owners []job.Owner) {
	names := newTable("tt")
	for _, o := range owners {
		if _, known := t.side.kept[o]; !known {
			t.side.kept[o] = 0
			if !isStorable(o.Tenant + o.User) {
				continue
			}
			names.text(o.Tenant).text(o.User)
		}
	}
	if names.empty() {
		return
	}
	t.reads.add(selectKept, func(r *record) {
		o := job.Owner{Tenant: r.text(), User: r.text()}
		t.side.kept[o] = r.int()
	}, names.params()...)
}

// KeptBytes reads the bytes that an owner kept before the batch; see [ops.SumTx].
func (t *tx) KeptBytes(o job.Owner) (int64, error) {
	if _, known := t.side.kept[o]; !known {
		t.addKept([]job.Owner{o})
		if err := t.read(); err != nil {
			return 0, err
		}
	}
	return t.side.kept[o], nil
}

// AddToKept adds to the bytes that an owner keeps; see [ops.SumTx].
func (t *tx) AddToKept(o job.Owner, bytes int64) error {
	t.bytes += bytes
	t.out.kept.text(o.Tenant).text(o.User).int(bytes)
	if bytes < 0 {
		t.out.emptyKept.text(o.Tenant).text(o.User)
	}
	return nil
}

// presenceChange is what the batch makes of a job's abandon timeout.
type presenceChange struct {
	start *ops.Job // nil to stop
}

// StartAbandon starts the abandon timeout of a job; see [ops.PresenceTx].
func (t *tx) StartAbandon(j *ops.Job) error {
	t.out.presence[j.ID] = presenceChange{j}
	return nil
}

// StopAbandon stops the abandon timeout of a job; see [ops.PresenceTx].
func (t *tx) StopAbandon(id job.ID) error {
	t.out.presence[id] = presenceChange{}
	return nil
}

// RenewJob starts the timeout of a job again; see [ops.PresenceTx].
func (t *tx) RenewJob(id job.ID) error {
	t.out.renewedJobs.uuid(id)
	return nil
}

// RenewOwner starts the timeouts of an owner's jobs again; see [ops.PresenceTx].
func (t *tx) RenewOwner(o job.Owner) error {
	t.out.renewedOwners.text(o.Tenant).text(o.User)
	return nil
}

// Abandoned reports whether the timeout of a job has ended; see [ops.PresenceTx].
func (t *tx) Abandoned(id job.ID) (abandoned bool, err error) {
	if _, changed := t.out.presence[id]; changed {
		return false, nil // it has just started, or the job has none any more
	}
	t.writePending()
	t.reads.add(selectAbandoned, func(r *record) { abandoned = r.flag() }, id[:], intParam(t.now.UnixMicro()))
	return abandoned, t.read()
}
