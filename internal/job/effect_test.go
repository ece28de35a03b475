package job_test

import (
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

var noon = time.Date(2031, 5, 7, 12, 0, 0, 0, time.UTC)

// Every effect leads to the state that it is asked for, and raises the revision by
// one.
func TestEffectsRaiseTheRevision(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		from   job.State
		effect func(*job.Job)
		to     job.State
	}{
		{"claim", job.Queued, func(j *job.Job) { j.Claim(noon) }, job.Running},
		{"move waiting", job.Parked, func(j *job.Job) { j.MoveWaiting(job.Queued) }, job.Queued},
		{"finish", job.Running, func(j *job.Job) { j.Finish(&job.Finish{To: job.Succeeded}, noon) }, job.Succeeded},
		{"wait again", job.Running, func(j *job.Job) { j.Finish(&job.Finish{To: job.Scheduled}, noon) }, job.Scheduled},
		{"cancel", job.Queued, func(j *job.Job) { j.End(job.Cancelled, noon) }, job.Cancelled},
		{"request a cancel", job.Running, func(j *job.Job) { j.RequestCancel(noon) }, job.Running},
		{"expire", job.Parked, func(j *job.Job) { j.Expire(nil, noon) }, job.Expired},
		{"retry", job.Failed, func(j *job.Job) { j.Retry(job.Parked, noon) }, job.Parked},
	} {
		j := job.Job{State: tt.from, Revision: 7, Attempt: 1}
		tt.effect(&j)
		if j.State != tt.to || j.Revision != 8 {
			t.Errorf("%s made a job of the revision 7 that was %s one of %d that is %s", tt.name, tt.from, j.Revision, j.State)
		}
	}
	j := job.Job{CancelRequestedAt: noon, Revision: 7}
	j.RequestCancel(noon.Add(time.Second))
	if j.Revision != 7 || !j.CancelRequestedAt.Equal(noon) {
		t.Errorf("a second request made it %d, %v", j.Revision, j.CancelRequestedAt)
	}
}

// A job whose cancel was requested ends as cancelled, whatever its worker reports.
func TestFinishOfCancelledJobCancels(t *testing.T) {
	t.Parallel()
	for _, to := range []job.State{job.Succeeded, job.Failed, job.Cancelled, job.Scheduled, job.Queued} {
		j := job.Job{State: job.Running, CancelRequestedAt: noon}
		j.Policy.Keep = job.Keep{Failed: time.Hour, Others: 2 * time.Hour}
		j.Finish(&job.Finish{To: to}, noon)
		if j.State != job.Cancelled || !j.FinishedAt.Equal(noon) || !j.ExpiresAt.Equal(noon.Add(2*time.Hour)) {
			t.Errorf("a finish as %s made it %s, kept until %v", to, j.State, j.ExpiresAt)
		}
	}
}

// No time of a job is finer than a store keeps.
func TestEffectsKeepWholeMicroseconds(t *testing.T) {
	t.Parallel()
	const odd = time.Second + 1234567
	want := noon.Add(time.Second + 1234*time.Microsecond)
	var created, back, ended job.Job
	created.Create(job.Scheduled, odd, noon)
	back.Finish(&job.Finish{To: job.Scheduled, Delay: odd}, noon)
	ended.Policy.Keep.Others = odd
	ended.End(job.Cancelled, noon)
	for _, got := range []time.Time{created.RunAt, back.RunAt, ended.ExpiresAt} {
		if !got.Equal(want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}
