package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// exporter posts spans to a collector, in OTLP over HTTP as JSON
// (https://opentelemetry.io/docs/specs/otlp/). The SDK's own exporter would do the
// same at the price of gRPC and its descriptors: a program half again as large, and
// some megabytes in memory of a server that traces nothing.
type exporter struct {
	// set once
	url     string
	headers map[string]string
	client  *http.Client
	log     *slog.Logger
	base    context.Context // of every call; over when nobody waits for spans any more
	giveUp  context.CancelFunc

	failing atomic.Bool // it was said that spans are lost
}

const (
	exportTries = 4
	exportPause = time.Second // before the second try; doubled for each one after
	exportTime  = 10 * time.Second
)

func newExporter(c Tracing, log *slog.Logger) (*exporter, error) {
	base, err := url.Parse(c.Endpoint)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("the tracing endpoint must be a URL like http://127.0.0.1:4318, not %q", c.Endpoint)
	}
	e := &exporter{
		url:     base.JoinPath("v1/traces").String(),
		headers: c.Headers,
		client:  &http.Client{Timeout: exportTime, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, IdleConnTimeout: 30 * time.Second}},
		log:     log,
	}
	e.base, e.giveUp = context.WithCancel(context.Background())
	return e, nil
}

// ExportSpans posts spans. Those that no try got across are lost, which is logged
// once, until the collector takes some again: a server does not stop for that.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	body, err := json.Marshal(payloadOf(spans))
	if err != nil {
		return err
	}
	if err := e.insist(ctx, body); err != nil {
		if !e.failing.Swap(true) {
			e.log.Warn("spans cannot be exported and are lost", "error", err)
		}
		return nil
	}
	if e.failing.Swap(false) {
		e.log.Info("spans are exported again")
	}
	return nil
}

// Shutdown lets go of the connection.
func (e *exporter) Shutdown(context.Context) error {
	e.client.CloseIdleConnections()
	return nil
}

// insist posts until the collector takes it, or will not.
func (e *exporter) insist(ctx context.Context, body []byte) error {
	pause := exportPause
	for try := 1; ; try++ {
		wait, err := e.post(ctx, body)
		if err == nil || wait < 0 || try == exportTries {
			return err
		}
		timer := time.NewTimer(max(wait, pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-e.base.Done():
			timer.Stop()
			return err
		}
		pause *= 2
	}
}

// post posts once. After an error wait is how long the collector asks to be left
// alone, below 0 where trying again would not help.
func (e *exporter) post(ctx context.Context, body []byte) (wait time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.base, cancel)()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return -1, err
	}
	req.Header.Set("Content-Type", "application/json")
	for name, value := range e.headers {
		req.Header.Set(name, value)
	}
	res, err := e.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10)
	if res.StatusCode < 300 {
		return 0, nil
	}
	err = fmt.Errorf("the collector answered %s", res.Status)
	switch res.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		seconds, _ := strconv.Atoi(res.Header.Get("Retry-After"))
		return time.Duration(max(seconds, 0)) * time.Second, err
	}
	return -1, err
}
