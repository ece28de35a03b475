package access

import (
	"math"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// DefaultTenant is the id of the tenant of all that was stored before there were keys. People
// call it [DefaultTenantName].
const (
	DefaultTenant     = ""
	DefaultTenantName = "default"
)

const tenantRule = "1 to 63 of a-z, 0-9, point, _ and -, and it begins with a letter or digit"

// TenantName returns the name of a tenant by its id, which is what [job.Owner] has.
func TenantName(id string) string {
	if id == DefaultTenant {
		return DefaultTenantName
	}
	return id
}

// TenantID returns the id of a tenant by its name.
func TenantID(name string) string {
	if name == DefaultTenantName {
		return DefaultTenant
	}
	return name
}

// ValidTenant reports whether a text may be the id of a tenant.
func ValidTenant(id string) bool {
	const maxName = 63 // bytes
	if len(id) > maxName || id == DefaultTenantName {
		return false
	}
	for i, c := range id {
		letter := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return true
}

// ParseTenant returns the id of the tenant of a name. A text that cannot be a name is
// [job.Invalid].
func ParseTenant(name string) (id string, err error) {
	id = TenantID(name)
	if name == "" || !ValidTenant(id) {
		return "", invalid("/tenant", "%s is no name of a tenant: %s", job.Quote(name), tenantRule)
	}
	return id, nil
}

// Tenant is an application whose jobs, keys and limits are its own.
type Tenant struct {
	ID      string
	Limits  Limits
	Created time.Time // by the store's clock; zero for a default tenant that was never changed
	// Deleted is when the deletion began, by the store's clock; zero for a tenant that exists. The
	// tenant is forgotten when all its data is deleted.
	Deleted time.Time
}

// Limits bound what one tenant takes of the server. 0 is no limit.
type Limits struct {
	SubmitsPerS float64 `json:"submits_per_s,omitempty"` // submits a second, on average
	Burst       int     `json:"burst,omitempty"`         // submits at once; 0 for those of one second
	Waiting     int     `json:"waiting,omitempty"`       // waiting jobs
	Running     int     `json:"running,omitempty"`       // running jobs
	Bytes       int64   `json:"bytes,omitempty"`         // of input and files of the waiting jobs
	Streams     int     `json:"streams,omitempty"`       // open streams and sockets, in one process
	Uploads     int     `json:"uploads,omitempty"`       // uploads at once, in one process
}

// Check returns [job.Invalid] for limits that make no sense.
func (l Limits) Check() error {
	for _, n := range []struct {
		name  string
		value float64
	}{
		{"submits_per_s", l.SubmitsPerS}, {"burst", float64(l.Burst)}, {"waiting", float64(l.Waiting)}, {"running", float64(l.Running)},
		{"bytes", float64(l.Bytes)}, {"streams", float64(l.Streams)}, {"uploads", float64(l.Uploads)},
	} {
		if n.value < 0 || math.IsNaN(n.value) || n.value > 1<<53 {
			return invalid("/limits/"+n.name, "the limit %s must be a positive number, or 0 for no limit", n.name)
		}
	}
	return nil
}
