package gate

import (
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// singleHeaders are the headers that a request has once at most, as net/http spells them.
// Two programs that read such a request may each take another one of the values: a proxy
// that checked the first would let the second pass. net/http itself refuses a second Host
// and two different values of Content-Length. Origin has a refusal of its own.
var singleHeaders = [...]string{
	"Authorization", "Content-Type", "Idempotency-Key", "Last-Event-Id", "Sec-Fetch-Site", tenantHeader, userHeader,
}

// checkSingle refuses a request that has one of these headers twice.
func checkSingle(r *http.Request) error {
	for _, name := range singleHeaders {
		if values := r.Header[name]; len(values) > 1 {
			return job.Errorf(job.Invalid, "the request has the header %s %d times: send it once", name, len(values))
		}
	}
	return nil
}
