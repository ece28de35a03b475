package job

import "time"

// A loss is an attempt whose worker was lost: its process died, or its lease lapsed.
// Either the job did it or it only ran beside the one that did, so losses are counted
// apart from failures, and jobs that were lost again are tried one at a time.
const (
	// MaxLosses is how many losses end a job as failed.
	MaxLosses = 5
	// suspectLosses is how many losses in a row make a job a suspect.
	suspectLosses = 2
	// lossBackoff is the wait after the first loss, doubled for each one after.
	lossBackoff = 2 * time.Second
)

// Suspect says whether the job may be what its workers die of. A store runs one
// suspect at a time: the innocent ones end by themselves, and the other one dies alone.
func (j *Job) Suspect() bool { return j.Losses-j.Cleared >= suspectLosses }

// Failures is how many attempts have failed, if the one that runs now does.
func (j *Job) Failures() int { return j.Attempt - j.Losses }

// countEnd counts the end of an attempt. One that was not lost clears the job: what
// was lost before it makes it no suspect any more.
func (j *Job) countEnd(lost bool) {
	if lost {
		j.Losses++
	} else {
		j.Cleared = j.Losses
	}
}

// DecideRetryAfterLoss decides what follows a loss. MaxAttempts does not bound losses: they have
// a bound of their own.
func (j *Job) DecideRetryAfterLoss(spoke bool) RetryDecision {
	if spoke && j.Policy.Retry.AfterOutput == FailAfterOutput || j.Losses+1 >= MaxLosses {
		return RetryDecision{}
	}
	return RetryDecision{Retry: true, Delay: lossBackoff << j.Losses}
}
