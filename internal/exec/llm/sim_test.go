package llm

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/simmodel"
)

func simInput(fault simmodel.Fault) string {
	return fmt.Sprintf(`{"messages":[{"role":"user","content":"x"}],"sim":{"fault":%q}}`, fault)
}

// Every way in which the simulated model answers badly has its fault, over a real connection.
func TestSimulatedFailures(t *testing.T) {
	t.Parallel()
	base := serve(t, simmodel.New(simmodel.Options{Tokens: 20, FaultAfter: 2, RetryAfter: 7 * time.Second}))
	for fault, w := range map[simmodel.Fault]struct {
		wantFault
		wait time.Duration
	}{
		simmodel.Quota:         {wantFault{"upstream_quota_exhausted", job.Final, "check your plan"}, 0},
		simmodel.NoRetry:       {wantFault{"upstream_rate_limited", job.Final, "will not get better"}, 0},
		simmodel.WaitInMessage: {wantFault{"upstream_rate_limited", job.Wait, "try again in 7s"}, 7 * time.Second},
		simmodel.WaitInHeaders: {wantFault{"upstream_rate_limited", job.Wait, ""}, 7 * time.Second},
		simmodel.WaitInDetails: {wantFault{"upstream_rate_limited", job.Wait, ""}, 7 * time.Second},
		simmodel.DetailList:    {wantFault{"upstream_rejected", job.Final, "body.messages.0.content: field required"}, 0},
		simmodel.WebPage:       {wantFault{"upstream_error", job.Retryable, "502 Bad Gateway"}, 0},
		simmodel.PackedError:   {wantFault{"upstream_rejected", job.Final, "told to refuse this"}, 0},
		simmodel.Redirect:      {wantFault{"upstream_redirect", job.Final, "elsewhere.invalid"}, 0},
		simmodel.EchoKey:       {wantFault{"upstream_unauthorized", job.Final, "[the key]"}, 0},
		simmodel.ErrorEvent:    {wantFault{"upstream_error", job.Retryable, "told to fail here"}, 0},
		simmodel.ErrorObject:   {wantFault{"upstream_error", job.Retryable, "told to fail here"}, 0},
		simmodel.ErrorInChoice: {wantFault{"upstream_error", job.Retryable, "told to fail here"}, 0},
		simmodel.FinishError:   {wantFault{"upstream_error", job.Retryable, "finish_reason: error"}, 0},
		simmodel.NestedEvent:   {wantFault{"upstream_bad_stream", job.Final, "64 levels"}, 0},
	} {
		f, _ := runFailing(t, newExecutor(t, base), simInput(fault))
		w.check(t, string(fault), f)
		if f.RetryAfter != w.wait {
			t.Errorf("%s: it asks to wait %v, want %v", fault, f.RetryAfter, w.wait)
		}
	}
	e := newExecutor(t, base)
	run(t, e, simInput("")) // this server gives finish reasons
	f, _ := runFailing(t, e, simInput(simmodel.DoneMidStream))
	wantFault{"upstream_incomplete", job.Retryable, ""}.check(t, "done-mid-stream", f)
}

// Every odd way in which the simulated model answers well is read.
func TestSimulatedOddities(t *testing.T) {
	t.Parallel()
	e := newExecutor(t, serve(t, simmodel.New(simmodel.Options{Tokens: 20})))
	plain := run(t, e, simInput("")).Text()
	for _, fault := range []simmodel.Fault{
		simmodel.NoStreamOptions, simmodel.NoStream, simmodel.IgnoreStream, simmodel.EmptyDeltas, simmodel.SingleNewlines, simmodel.NoLastBlank, simmodel.EmptyData,
		simmodel.ByteOrderMark, simmodel.CarriageReturns, simmodel.ChunkPerLine, simmodel.PackedStream, simmodel.StreamAsJSON, simmodel.OddTypes,
		simmodel.TextParts, simmodel.OtherFields, simmodel.HugeUsage, simmodel.LongReasoning, simmodel.Logprobs, simmodel.LargeEvent,
	} {
		if testing.Short() && (fault == simmodel.LongReasoning || fault == simmodel.LargeEvent) {
			continue // they send megabytes
		}
		// An executor of its own, because what is learned from refusals is remembered.
		r := run(t, newExecutor(t, e.models["m"].BaseURL), simInput(fault))
		var result struct {
			Choices []struct{ Message struct{ Content string } }
		}
		_ = json.Unmarshal(r.Results[0].Body, &result)
		if r.Text() != plain || result.Choices[0].Message.Content != plain {
			t.Errorf("%s: the text is %q, the result %.500s", fault, r.Text(), r.Results[0].Body)
		}
		if len(r.Usage) == 0 && fault != simmodel.NoStreamOptions {
			t.Errorf("%s: there is no usage", fault)
		}
	}
	if r := run(t, e, simInput(simmodel.CutCharacters)); r.Text() != "A smile 😀 costs 1 €." {
		t.Errorf("the text is %q", r.Text())
	}
	for _, fault := range []simmodel.Fault{simmodel.ToolCalls, simmodel.ToolsAtZero, simmodel.ToolsNoIndex, simmodel.ToolsMixed, simmodel.ToolsRepeat} {
		r := run(t, e, simInput(fault))
		want := `"tool_calls":[{"function":{"arguments":"{\"q\":1}","name":"find"},"id":"call_a","type":"function"},{"function":{"arguments":"{}","name":"stop"},"id":"call_b","type":"function"}]`
		if !strings.Contains(string(r.Results[0].Body), want) {
			t.Errorf("%s: the result is %s", fault, r.Results[0].Body)
		}
	}
}

// A server that sends only comments for long is alive.
func TestSimulatedKeepAlive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := newInMemory(t, simmodel.New(simmodel.Options{Tokens: 2, FirstToken: 10 * time.Minute, KeepAlive: 5 * time.Second}))
		task := exectest.Task([]byte(hello))
		task.Job.Policy.Timeouts.Request = time.Minute
		a := exectest.Start(t, e, task)
		if err := a.Wait(); err != nil {
			t.Fatal(err)
		}
		if n := a.Sink.Record().Alive; n < 119 {
			t.Errorf("ten minutes of comments were %d signs of life", n)
		}
	})
}
