package job

import "time"

// A loss is an attempt whose worker was lost: its process died, or its lease ran out. Either
// the job caused the loss, or another job of the same process did. So losses are counted apart
// from failures, and jobs with repeated losses run one at a time.
const (
	// MaxLosses is the number of losses after which a job fails.
	MaxLosses = 5
	// suspectLosses is the number of losses in a row that make a job a suspect.
	suspectLosses = 2
	// lossBackoff is the wait after the first loss. It doubles with each further loss.
	lossBackoff = 2 * time.Second
)

// Suspect reports whether the job may be the one that crashes its workers. A store runs one
// suspect at a time: a job that is not the cause then finishes, and the job that is the cause
// harms no other.
func (j *Job) Suspect() bool { return j.Losses-j.Cleared >= suspectLosses }

// Failures is the number of failed attempts, the current one included.
func (j *Job) Failures() int { return j.Attempt - j.Losses }

// countEnd counts the end of an attempt. An attempt that was not lost clears the earlier
// losses: they no longer make the job a suspect.
func (j *Job) countEnd(lost bool) {
	if lost {
		j.Losses++
	} else {
		j.Cleared = j.Losses
	}
}

// DecideRetryAfterLoss decides what follows a loss. hasOutput is whether the attempt wrote
// output. Losses are bounded by [MaxLosses], not by MaxAttempts.
func (j *Job) DecideRetryAfterLoss(hasOutput bool) RetryDecision {
	if hasOutput && j.Policy.Retry.AfterOutput == FailAfterOutput || j.Losses+1 >= MaxLosses {
		return RetryDecision{}
	}
	return RetryDecision{Retry: true, Delay: lossBackoff << j.Losses}
}
