// Package job holds the nouns of Meanwhile: a job and its states, the lease that
// lets a worker run it, what it says while it runs, how it may fail, and the
// limits that bound all of it.
//
// The package does no I/O and imports nothing else of the project, so that every
// other room can speak its words. Rules that need a store or a clock live in
// internal/engine; the names on the wire live in the faces.
package job
