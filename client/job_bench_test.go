package client

import "testing"

func BenchmarkDecodeJob(b *testing.B) {
	body := []byte(typicalJob)
	b.ReportAllocs()
	for b.Loop() {
		if err := new(Job).UnmarshalJSON(body); err != nil {
			b.Fatal(err)
		}
	}
}
