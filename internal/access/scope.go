package access

import (
	"math/bits"
	"slices"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Scopes is a set of scopes. Each constant is a set of one.
type Scopes uint16

// The scopes.
const (
	Submit      Scopes = 1 << iota // submit jobs
	Read                           // read jobs with their payloads; includes ReadMeta
	ReadMeta                       // read jobs without input, output, result, files and messages of progress
	Cancel                         // cancel jobs
	Operate                        // retry, delete and redrive jobs
	Work                           // claim and finish jobs of the queues in [Key.Work]
	Webhooks                       // manage the endpoints of callbacks
	TenantAdmin                    // manage the keys of the own tenant
	Admin                          // everything, in all tenants
)

// AllScopes has every scope.
const AllScopes = Admin<<1 - 1

// scopeNames has the name of each scope, in the order of the bits.
var scopeNames = [...]string{"submit", "read", "read-meta", "cancel", "operate", "work", "webhooks", "tenant-admin", "admin"}

// workPrefix precedes the queue in the scope of a worker: work:ocr, or work:* for every queue.
const workPrefix = "work:"

// AnyQueue in [Key.Work] stands for every queue.
const AnyQueue = "*"

// Allow reports whether the set allows everything that needs all scopes of need. Admin includes
// every scope, and Read includes ReadMeta. Every set allows the empty need.
func (s Scopes) Allow(need Scopes) bool { return s.included()&need == need }

// included adds the scopes that other scopes include.
func (s Scopes) included() Scopes {
	if s&Admin != 0 {
		return AllScopes
	}
	if s&Read != 0 {
		s |= ReadMeta
	}
	return s
}

// Names returns the names of the scopes in the set. Work has no queues here; see
// [Key.ScopeNames].
func (s Scopes) Names() []string {
	names := make([]string, 0, bits.OnesCount16(uint16(s)))
	for i, name := range scopeNames {
		if s&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// String returns the names with commas.
func (s Scopes) String() string { return strings.Join(s.Names(), ",") }

// ParseScopes reads names of scopes, in any order. It returns the queues of work:QUEUE apart. An
// unknown name is [job.Invalid]; the error lists the known ones.
func ParseScopes(names []string) (s Scopes, work []string, err error) {
	for _, name := range names {
		queue, isWork := strings.CutPrefix(name, workPrefix)
		i := slices.Index(scopeNames[:], name)
		switch {
		case isWork && (queue == AnyQueue || validQueue(queue)):
			s |= Work
			work = append(work, queue)
		case isWork || name == "work":
			return 0, nil, job.Errorf(job.Invalid, "the scope %s names no queue: write work:QUEUE for one queue, or work:* for all", job.Quote(name))
		case i >= 0:
			s |= 1 << i
		default:
			return 0, nil, job.Errorf(job.Invalid, "there is no scope %s; the scopes are %s", job.Quote(name), knownScopes())
		}
	}
	return s, Sorted(work), nil
}

// knownScopes lists the scopes as ParseScopes reads them.
func knownScopes() string {
	return strings.Replace(strings.Join(scopeNames[:], ", "), "work", "work:QUEUE", 1)
}

// role is a named bundle of scopes.
type role struct {
	name   string
	scopes []string
}

// roles are the bundles, from the weakest to the strongest.
var roles = []role{
	{"meta-viewer", []string{"read-meta"}},
	{"viewer", []string{"read"}},
	{"submitter", []string{"submit", "read", "cancel"}},
	{"operator", []string{"submit", "read", "cancel", "operate"}},
	{"worker", []string{"work:*"}},
	{"tenant-admin", []string{"submit", "read", "cancel", "operate", "webhooks", "tenant-admin"}},
	{"admin", []string{"admin"}},
}

// RoleNames returns the names of the roles.
func RoleNames() (names []string) {
	for _, r := range roles {
		names = append(names, r.name)
	}
	return names
}

// RoleScopes returns the names of a role's scopes, as [ParseScopes] reads them. An unknown role is
// [job.Invalid]; the error lists the known ones.
func RoleScopes(name string) ([]string, error) {
	for _, r := range roles {
		if r.name == name {
			return slices.Clone(r.scopes), nil
		}
	}
	return nil, job.Errorf(job.Invalid, "there is no role %s; the roles are %s", job.Quote(name), strings.Join(RoleNames(), ", "))
}

// Sorted returns the values in order, each once; nil for none.
func Sorted(values []string) []string {
	values = slices.Clone(values)
	slices.Sort(values)
	return slices.Compact(values)
}
