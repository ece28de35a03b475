// Package storetest is the contract of package store as tests. Every store must pass it, alone and
// behind the wrappers of package faulty.
//
// The suite is a list of topics, and a topic is a list of rules. A rule is a sentence and a
// function that checks it on a new store. The sentence is the name of the subtest, so that a
// failure names the broken promise. New behaviour of stores is added here first. Rules that a
// race could break run with two stores that share one database, as two processes do.
package storetest

import (
	"slices"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Suite opens the stores under test.
type Suite struct {
	// Open opens the store at path. At the first call the path does not exist; the test removes
	// its directory. After a Close it is called again with the same path, and must return a
	// store with the same data. The suite closes the stores. Open is called by several
	// goroutines at once.
	Open func(tb testing.TB, path string, o Options) store.Store
	// OpenSeveral opens n stores that share one database, as n processes do. When it is nil,
	// the suite uses n handles of one store from Open, with one lock around Apply.
	OpenSeveral func(tb testing.TB, path string, n int, o Options) []store.Store
	// ForgetsTurns leaves out the rules about turns: the stores load their memory again after each
	// commit that they lose, and an opening forgets the turns of tenants and of keys without jobs.
	ForgetsTurns bool
	// Slow is set when an opening takes long. With -short, the suite then checks one rule of each
	// topic and one random history.
	Slow bool
}

// Options are the options with which a test opens a store.
type Options struct {
	// Clock is the clock of the test; nil means the clock of the store itself.
	Clock func() time.Time
	AtEnd store.AtEnd
}

// rule is one promise of the contract.
type rule struct {
	sentence string
	test     func(w *harness)
}

type topic struct {
	name  string
	rules []rule
}

func topics() []topic {
	return []topic{
		{"submit", submitRules()},
		{"idempotency", idempotencyRules()},
		{"claim", claimRules()},
		{"order", orderRules()},
		{"limits", limitRules()},
		{"room", roomRules()},
		{"room and keys", keyRoomRules()},
		{"full keys", fullRules()},
		{"pauses", pauseRules()},
		{"groups", groupRules()},
		{"lease", leaseRules()},
		{"lapse", lapseRules()},
		{"loss", lossRules()},
		{"leases", sharedLeaseRules()},
		{"clocks", clockRules()},
		{"output", outputRules()},
		{"text", textRules()},
		{"finish", finishRules()},
		{"cancel", cancelRules()},
		{"delete", deleteRules()},
		{"retry", retryRules()},
		{"moves", moveRules()},
		{"revisions", revisionRules()},
		{"rows", rowRules()},
		{"ends", endRules()},
		{"tallies", tallyRules()},
		{"due", dueRules()},
		{"prune", pruneRules()},
		{"retention", retentionRules()},
		{"list", listRules()},
		{"sweeps", sweepRules()},
		{"presence", presenceRules()},
		{"versions", versionRules()},
		{"owners", ownerRules()},
		{"tenants", tenantRules()},
		{"counts", countRules()},
		{"batch", batchRules()},
		{"pipeline", pipelineRules()},
		{"bad data", badDataRules()},
		{"durable", durableRules()},
		{"identity", identityRules()},
		{"races", raceRules()},
	}
}

// sharedTopics lists the rules that a race between stores of one database could break.
func sharedTopics() []topic {
	return []topic{
		{"claims", sharedClaimRules()},
		{"submits", sharedSubmitRules()},
		{"leases", racedLeaseRules()},
		{"ends", sharedEndRules()},
		{"upkeep", sharedUpkeepRules()},
		{"reads", sharedReadRules()},
	}
}

// long marks a rule that takes long. With -short it is skipped.
func long(test func(*harness)) func(*harness) {
	return func(w *harness) {
		if testing.Short() {
			w.failer.(testing.TB).Skip("takes long")
		}
		test(w)
	}
}

// Run checks the suite's store against every rule. Subtests run in parallel, each with stores
// of its own. With -short it leaves out long rules, replays, most random histories and the rules
// for several stores; see also [Suite.Slow].
func Run(t *testing.T, s Suite) {
	runTopics(t, s, 1, topics()...)
	t.Run("model", func(t *testing.T) { t.Parallel(); runModel(t, s) })
	if !testing.Short() {
		t.Run("replay", func(t *testing.T) { runReplays(t, s) })
		t.Run("two stores", func(t *testing.T) { runTopics(t, s, 2, sharedTopics()...) })
		t.Run("three stores", func(t *testing.T) { runTopics(t, s, 3, topic{"claims", sharedClaimRules()}) })
	}
	t.Run("history of two stores", func(t *testing.T) { t.Parallel(); runHistories(t, s) })
}

// RunTopics checks the suite's store against the rules of some topics, and two stores against the
// rules of claims: for another way to the same store, such as a pooler in between.
func RunTopics(t *testing.T, s Suite, names ...string) {
	for _, topic := range topics() {
		if slices.Contains(names, topic.name) {
			runTopics(t, s, 1, topic)
		}
	}
	t.Run("two stores", func(t *testing.T) { runTopics(t, s, 2, topic{"claims", sharedClaimRules()}) })
}

// runTopics checks n stores of one database against the rules.
func runTopics(t *testing.T, s Suite, n int, topics ...topic) {
	for _, topic := range topics {
		if s.ForgetsTurns && slices.Contains([]string{"order", "tenants", "room", "room and keys"}, topic.name) {
			continue
		}
		t.Run(topic.name, func(t *testing.T) {
			if s.Slow && testing.Short() {
				t.Parallel()
				runOne(t, s, n, topic.rules)
				return
			}
			for _, r := range topic.rules {
				t.Run(r.sentence, func(t *testing.T) {
					t.Parallel()
					r.check(t, s, n)
				})
			}
		})
	}
}

// runOne checks the first rule that is not too long for -short.
func runOne(t *testing.T, s Suite, n int, rules []rule) {
	for _, r := range rules {
		checked := false
		t.Run(r.sentence, func(t *testing.T) {
			defer func() { checked = !t.Skipped() }()
			r.check(t, s, n)
		})
		if checked {
			return
		}
	}
}

func (r rule) check(t *testing.T, s Suite, n int) {
	w := newHarnessOf(t, s, n)
	r.test(w)
	for i := range n {
		w.use(i)
		w.checkCounts()
	}
}
