// Package model has a model of how several processes share one database, in the language of
// the model checker spin, and tests that check it. README.md explains it.
package model
