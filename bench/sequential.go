package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// waitMethod is a way to submit a job and wait for its end.
type waitMethod struct {
	how string
	do  func(context.Context, *client.Client, client.Submission) (*client.Job, error)
}

// waitMethods returns the methods that sequential and parallel measure.
func waitMethods() []waitMethod {
	return []waitMethod{
		{"a job from its submit to its end, in one long-poll (Prefer: wait)", func(ctx context.Context, c *client.Client, s client.Submission) (*client.Job, error) {
			return c.SubmitAndWait(ctx, s)
		}},
		{"a job from its submit to its end, submitted and then waited for by long-poll", func(ctx context.Context, c *client.Client, s client.Submission) (*client.Job, error) {
			j, err := c.Submit(ctx, s)
			if err != nil {
				return nil, err
			}
			return c.Wait(ctx, j.ID)
		}},
	}
}

// runWaited measures jobs with several clients, each of which waits for its job.
func (o *Options) runWaited(ctx context.Context, name string, clients int, r *Report) error {
	for _, w := range waitMethods() {
		o.Step(fmt.Sprintf("%s: %d jobs, %s", name, o.Jobs, w.how))
		f := Figure{Name: name, How: w.how, Client: plainClientText, Clients: clients, Jobs: o.Jobs}
		if err := o.measureWaited(ctx, &f, w); err != nil {
			return err
		}
		floor, err := o.floor(ctx, clients, dialPlain)
		if err != nil {
			return err
		}
		f.Floor = floor
		r.Figures = append(r.Figures, f)
	}
	return nil
}

func (o *Options) measureWaited(ctx context.Context, f *Figure, w waitMethod) error {
	t, err := o.openTarget(ctx)
	if err != nil {
		return err
	}
	defer t.close()
	c, closeClient, err := dialPlain(ctx, t.url)
	if err != nil {
		return err
	}
	defer closeClient()
	s := o.submission()
	began := time.Now()
	out, err := runLoad(ctx, f.Clients, newBudget(o.Jobs, 0), func(ctx context.Context) error {
		j, err := w.do(ctx, c, s)
		if err == nil && j.Status != client.Succeeded {
			err = fmt.Errorf("the job %s is %s", j.ID, j.Status)
		}
		return err
	})
	if err != nil {
		return err
	}
	took := time.Since(began)
	f.Seconds, f.PerS, f.Latency = seconds(took), perSecond(len(out.samples), took), latencyOf(out.samples)
	if o.Database != "" && f.Name == "sequential" {
		f.goalMax("P50", f.Latency.P50, 3, "ms")
		f.goalMax("P99", f.Latency.P99, 12, "ms")
	}
	return nil
}
