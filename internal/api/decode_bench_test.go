package api

import (
	"encoding/json"
	"strings"
	"testing"
)

// wideStruct has as many fields as the widest request that is decoded often.
type wideStruct struct {
	Queue       string            `json:"queue"`
	Input       json.RawMessage   `json:"input"`
	Priority    *int              `json:"priority"`
	Key         string            `json:"key"`
	RunAt       *string           `json:"run_at"`
	DelayS      *float64          `json:"delay_s"`
	MaxAttempts *int              `json:"max_attempts"`
	Metadata    map[string]string `json:"metadata"`
	Nested      *struct {
		LeaseS *float64 `json:"lease_s"`
	} `json:"timeouts"`
}

func BenchmarkDecode500Bytes(b *testing.B) {
	body := []byte(`{"queue":"sim","key":"user-17","priority":3,"input":{"model":"m","messages":[{"role":"system","content":"You answer briefly."},{"role":"user","content":"` +
		strings.Repeat("word ", 66) + `"}],"temperature":0.5,"stream":true}}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var v wideStruct
		if err := DecodeJSON(body, &v); err != nil {
			b.Fatal(err)
		}
	}
}
