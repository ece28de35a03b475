// Package model has models of how several processes share one database, in the language of
// the model checker spin, and tests that check them. README.md explains them.
package model
