// Package ops applies the ops of a batch in the same way for every store. What package store
// promises of an op is written here once; a store implements [Tx], the primitives of its
// transaction, and keeps a [Memory].
//
// An op reads jobs and other things by their names, changes the [Job] that it was given, and tells
// the Tx what it changed. A Tx may have read everything before the first op, and may write
// everything after the last one: an op learns of earlier writes only by reading from the Tx.
// [NamesOf] lists what a batch names, so that a Tx can read it in one go.
//
// The memory has the counts, turns and limits of each queue, and the jobs that lost their workers.
// It changes while the ops apply. If the transaction then fails, the store must load it again.
// Processes that share a store exchange the changes of their memories; see [Change].
package ops
