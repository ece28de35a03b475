// Package engine has the rules.
package engine

// Engine is the rules.
type Engine struct{}
