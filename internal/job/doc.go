// Package job holds the nouns of Meanwhile: a job and its states, the lease that lets a
// worker run it, its output, its failures, and the limits that bound all of these.
//
// The package does no I/O and imports no other package of the project, so every package may
// import it. Rules that need a store or a clock are in internal/engine. The names on the
// wire are in the packages under internal/api.
package job
