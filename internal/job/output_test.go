package job_test

import (
	"math"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestCheckEntries(t *testing.T) {
	t.Parallel()
	const start, cursor = 3, 5 // the attempt has appended 4 and 5
	for name, c := range map[string]struct {
		seqs     []int64
		progress *job.Progress
		repeated bool
		code     job.Code // "" for none
	}{
		"no entries":                      {},
		"the next ones":                   {seqs: []int64{6, 7}},
		"the same again":                  {seqs: []int64{4, 5}, repeated: true},
		"a part of them again":            {seqs: []int64{4}, repeated: true},
		"those of the attempt before":     {seqs: []int64{3}, code: job.Conflict},
		"some again and a new one":        {seqs: []int64{5, 6}, code: job.Conflict},
		"a gap before them":               {seqs: []int64{7}, code: job.Conflict},
		"a gap among them":                {seqs: []int64{6, 8}, code: job.Conflict},
		"a progress that is not a number": {progress: &job.Progress{Percent: math.NaN()}, code: job.Invalid},
		"an infinite progress":            {progress: &job.Progress{Percent: math.Inf(1)}, code: job.Invalid},
	} {
		var entries []job.Entry
		for _, seq := range c.seqs {
			entries = append(entries, job.Entry{Seq: seq})
		}
		repeated, refusal := job.CheckEntries(entries, c.progress, start, cursor)
		refused := refusal != nil
		if repeated != c.repeated || refused != (c.code != "") || refused && job.CodeOf(refusal) != c.code {
			t.Errorf("%s: %v, %v", name, repeated, refusal)
		}
	}
}
