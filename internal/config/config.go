// Package config is all that a server can be told: one struct, filled from
// defaults, then a YAML file, then MEANWHILE_… variables, then flags, each beating
// the one before.
//
// Every key does something. An unknown key, a value of the wrong kind or one out
// of bounds is refused with its place, its key and what would be right, all
// problems at once. docs/configuration.md describes every key, and
// examples/meanwhile.yaml has one of each; tests hold both to the struct.
package config

import (
	"net"
	"time"
)

// Config is a server's configuration. Durations are written in seconds, fractions
// allowed, under keys that end in _s.
type Config struct {
	Listen         string           `yaml:"listen"`           // host:port; port 0 takes a free one
	Insecure       bool             `yaml:"insecure"`         // allow listening beyond loopback, where anyone who connects may do anything
	PublicURL      string           `yaml:"public_url"`       // how browsers reach the server; "": by the address they ask
	AllowedOrigins []string         `yaml:"allowed_origins"`  // of pages that may follow jobs by their watch tokens; "*" for all
	TrustedProxies []string         `yaml:"trusted_proxies"`  // addresses and networks that are believed about who asks
	WatchTTL       time.Duration    `yaml:"watch_ttl_s"`      // how long a watch token is good
	Data           string           `yaml:"data"`             // the directory that holds everything
	MinFreeBytes   int64            `yaml:"min_free_bytes"`   // of the disk; with less no new work is taken
	ShutdownGrace  time.Duration    `yaml:"shutdown_grace_s"` // how long running work may finish once the server stops
	Models         []Model          `yaml:"models"`           // none: the built-in simulated model
	Queues         map[string]Queue `yaml:"queues"`           // on top of those of the box
	Files          Files            `yaml:"files"`
	Retention      Retention        `yaml:"retention"`
	Log            Log              `yaml:"log"`
	Metrics        Metrics          `yaml:"metrics"`
	Tracing        Tracing          `yaml:"tracing"`
	Pprof          bool             `yaml:"pprof"` // answer /debug/pprof/ to programs on this machine
}

// Model is an upstream that speaks the OpenAI chat completions protocol.
type Model struct {
	Name        string `yaml:"name"`        // what jobs ask for, and what the upstream is asked for
	BaseURL     string `yaml:"base_url"`    // up to and without /chat/completions
	APIKeyEnv   string `yaml:"api_key_env"` // the variable that holds the key; "" sends none
	Concurrency int    `yaml:"concurrency"` // calls at once over all queues; 0 for as many as the queues run
	// APIKey is what the variable held when the configuration was loaded. It is never
	// written anywhere.
	APIKey string `yaml:"-"`
}

// Files bounds the files that come with jobs.
type Files struct {
	MaxBytes int64 `yaml:"max_bytes"` // of one file; those of a job together may have twice as many
}

// Retention is how long ended jobs are kept, with all they left.
type Retention struct {
	Failed time.Duration `yaml:"failed_s"`
	Others time.Duration `yaml:"others_s"`
	// MaxBytes is how much the database may hold: past it the oldest ended jobs go
	// before their time; 0 for no bound.
	MaxBytes int64 `yaml:"max_bytes"`
}

// Log is how the server tells its story.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // text, json; auto is text on a terminal
}

// Default is the configuration of a server that was told nothing.
func Default() Config {
	chat := Defaults(LLM)
	chat.MaxDepth = 1000
	chat.Retry.For = 2 * time.Minute
	return Config{
		Listen:        "127.0.0.1:8080",
		WatchTTL:      24 * time.Hour,
		Data:          "./meanwhile-data",
		MinFreeBytes:  64 << 20,
		ShutdownGrace: 25 * time.Second,
		Queues:        map[string]Queue{"chat": chat, "sim": Defaults(Sim)},
		Files:         Files{MaxBytes: 512 << 20},
		Retention:     Retention{Failed: 7 * 24 * time.Hour, Others: 24 * time.Hour, MaxBytes: 16 << 30},
		Log:           Log{Level: "info", Format: "auto"},
		Tracing:       Tracing{Ratio: 1},
	}
}

// Loopback says whether only programs on this machine can reach a listen address.
func Loopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
