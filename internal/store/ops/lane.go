package ops

import (
	"strconv"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A lane is an ordered set of ready jobs of one queue, by turn. Its name is a text that stores
// keep with the job and have an index on:
//
//	""  or "=" tenant             queued jobs of the tenant that need no resource
//	"@" length ":" tenant resource  queued jobs of the tenant that need the resource
//	"+" key                       parked jobs of a key of the empty tenant
//	"-" length ":" tenant key     parked jobs of a key of the tenant
//	"&" length ":" tenant length ":" key resource  parked jobs of a key that need the resource
//	"!" length ":" tenant resource  parked suspects of the tenant that need the resource
//
// Length is the number of bytes of the name after it.

// SuspectLanePrefix begins the lanes of parked suspects, which wait until no suspect runs.
const SuspectLanePrefix = "!"

// Lane returns the lane of ready jobs of a key in the state Queued or Parked.
func Lane(s job.State, k fairqueue.Key, resource string) string {
	switch {
	case s == job.Parked && resource != "":
		return "&" + lengthAnd(k.Tenant) + lengthAnd(k.Name) + resource
	case s == job.Parked && k.Tenant == "":
		return "+" + k.Name
	case s == job.Parked:
		return "-" + lengthAnd(k.Tenant) + k.Name
	case resource != "":
		return "@" + lengthAnd(k.Tenant) + resource
	case k.Tenant == "":
		return ""
	}
	return "=" + k.Tenant
}

// LaneOf returns the lane of a queued or parked job, if it is no parked suspect.
func LaneOf(j *job.Job) string { return Lane(j.State, fairqueue.KeyOf(j), j.Resource) }

// SuspectLane returns the lane of a parked suspect.
func SuspectLane(j *job.Job) string {
	return SuspectLanePrefix + lengthAnd(j.Owner.Tenant) + j.Resource
}

// lengthAnd returns the length of a name, a colon and the name.
func lengthAnd(name string) string { return strconv.Itoa(len(name)) + ":" + name }

// ParseLane returns the state of the jobs in a lane, their tenant and their resource.
func ParseLane(lane string) (s job.State, tenant, resource string) {
	if lane == "" {
		return job.Queued, "", ""
	}
	switch kind, rest := lane[0], lane[1:]; kind {
	case SuspectLanePrefix[0]:
		tenant, resource = cutName(rest)
		return job.Parked, tenant, resource
	case '=':
		return job.Queued, rest, ""
	case '@':
		tenant, resource = cutName(rest)
		return job.Queued, tenant, resource
	case '-':
		tenant, _ = cutName(rest)
		return job.Parked, tenant, ""
	case '&':
		tenant, rest = cutName(rest)
		_, resource = cutName(rest)
		return job.Parked, tenant, resource
	}
	return job.Parked, "", ""
}

// cutName parses the length of a name, a colon, the name, and more.
func cutName(text string) (name, more string) {
	size, rest, _ := strings.Cut(text, ":")
	if n, err := strconv.Atoi(size); err == nil && 0 <= n && n <= len(rest) {
		return rest[:n], rest[n:]
	}
	return "", ""
}
