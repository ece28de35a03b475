// Package config holds the configuration of a server: one struct, filled from defaults,
// then a YAML file, then MEANWHILE_… variables, then flags. Each source overrides those
// before it.
//
// Load refuses an unknown key, a value of the wrong kind and a value out of bounds. It
// reports all problems at once, each with its place, its key and a valid value.
// Tests check that docs/configuration.md describes every key and that
// examples/meanwhile.yaml contains it.
package config

import (
	"net"
	"time"
)

// Config is a server's configuration. A file has durations in seconds, with fractions,
// under keys that end in _s.
type Config struct {
	Listen         string        `yaml:"listen"`          // host:port; port 0 chooses a free port
	Insecure       bool          `yaml:"insecure"`        // allow listening beyond loopback without keys, where anyone who connects may do anything
	PublicURL      string        `yaml:"public_url"`      // how browsers reach the server; "": at the host of the request
	AllowedHosts   []string      `yaml:"allowed_hosts"`   // more names of the server in Host headers; "*" for any
	AllowedOrigins []string      `yaml:"allowed_origins"` // origins of pages that may use the server with a token; "*" for all
	TrustedProxies []string      `yaml:"trusted_proxies"` // addresses and networks whose forwarding headers are trusted
	WatchTTL       time.Duration `yaml:"watch_ttl_s"`     // how long a watch token is valid
	Data           string        `yaml:"data"`            // the directory that holds everything, or a cache beside a database
	Database       string        `yaml:"database"`        // the URL of a PostgreSQL database, for several servers; "": SQLite in Data
	DatabaseFile   string        `yaml:"database_file"`   // a file that holds this URL. Load reads it into Database
	// Whether a start brings the schema of the database up to date.
	DatabaseMigrate bool `yaml:"database_migrate"`
	// Whether a pooler is between the server and the database that gives each transaction
	// another connection, and knows no prepared statements.
	DatabasePooler bool             `yaml:"database_pooler"`
	MinFreeBytes   int64            `yaml:"min_free_bytes"`   // free space of the disk below which new work is refused
	ShutdownGrace  time.Duration    `yaml:"shutdown_grace_s"` // how long running work may continue once the server stops
	Models         []Model          `yaml:"models"`           // none: the built-in simulated model
	Queues         map[string]Queue `yaml:"queues"`           // by name; chat and sim are built in
	TLS            TLS              `yaml:"tls"`
	Connections    Connections      `yaml:"connections"`
	Bodies         Bodies           `yaml:"bodies"`
	Files          Files            `yaml:"files"`
	Callbacks      Callbacks        `yaml:"callbacks"`
	Retention      Retention        `yaml:"retention"`
	Encryption     Encryption       `yaml:"encryption"`
	Log            Log              `yaml:"log"`
	Metrics        Metrics          `yaml:"metrics"`
	Tracing        Tracing          `yaml:"tracing"`
	Pprof          bool             `yaml:"pprof"` // answer /debug/pprof/ to programs on this machine
}

// Model is a model behind a server with OpenAI's chat completions API.
type Model struct {
	Name        string            `yaml:"name"`        // the name in jobs
	Upstream    string            `yaml:"upstream"`    // the name in calls to the server; "" for Name
	BaseURL     string            `yaml:"base_url"`    // with or without /chat/completions
	Query       map[string]string `yaml:"query"`       // added to the URL of each call
	APIKeyEnv   string            `yaml:"api_key_env"` // the variable that holds the API key; "" sends none
	Headers     map[string]string `yaml:"headers"`     // sent with each call
	Concurrency int               `yaml:"concurrency"` // maximum of concurrent calls over all queues; 0 for only the queues' limits
	// Whether to ask for streamed answers, and whether to send stream_options; nil learns it from
	// what the upstream refuses.
	Stream        *bool `yaml:"stream"`
	StreamOptions *bool `yaml:"stream_options"`
	// APIKey is the value of that variable when the configuration was loaded. It is never
	// written to a log or a file. Secrets are the values of variables in Headers and Query.
	APIKey  string   `yaml:"-"`
	Secrets []string `yaml:"-"`
}

// TLS names the files of the server's certificate, both in PEM. Without them the server speaks plain
// HTTP. They are read again when they change.
type TLS struct {
	Cert string `yaml:"cert"` // the certificate and those between it and the root
	Key  string `yaml:"key"`  // its private key
}

// Connections limits the connections of the server's own address.
type Connections struct {
	Max        int `yaml:"max"`         // in all; 0 for as many as leave descriptors for work
	PerAddress int `yaml:"per_address"` // of one address, loopback and trusted proxies aside; never more than a quarter of all
}

// Bodies limits the memory of the bodies of requests and the messages of sockets that are in
// flight. What has arrived counts.
type Bodies struct {
	MaxBytes    int64 `yaml:"max_bytes"`    // of all callers together
	CallerBytes int64 `yaml:"caller_bytes"` // of one caller: a user, or the address of a client that names none
}

// Files limits the files of jobs.
type Files struct {
	MaxBytes   int64 `yaml:"max_bytes"`   // of one file; all files of a job together may have twice as many
	CacheBytes int64 `yaml:"cache_bytes"` // of the copies in Data of files that are in the database
}

// Callbacks says where and how the ends of jobs are sent.
type Callbacks struct {
	// Allow lists receivers that are not on the public internet; see [netguard.ParseAllow].
	Allow       []string      `yaml:"allow"`
	Timeout     time.Duration `yaml:"timeout_s"`    // how long a receiver may take to answer
	Concurrency int           `yaml:"concurrency"`  // maximum of deliveries at once in one server
	PerReceiver int           `yaml:"per_receiver"` // of these to one receiver, over all servers
}

// Retention sets how long ended jobs are kept, with their output, result and files.
type Retention struct {
	Failed time.Duration `yaml:"failed_s"`
	Others time.Duration `yaml:"others_s"`
	// MaxBytes is the maximum size of the database and the files. Above it the oldest
	// ended jobs are deleted early. 0 is no limit.
	MaxBytes int64 `yaml:"max_bytes"`
	// UserBytes is how many bytes of conversations and of records of deleted jobs one user
	// may keep. 0 is no limit.
	UserBytes int64 `yaml:"user_bytes"`
}

// Encryption names the keys that encrypt what jobs carry, in the database. The first key seals,
// all of them open. Without keys nothing is encrypted. The word "clear" in the place of the first
// key seals nothing.
type Encryption struct {
	KeyFile string   `yaml:"key_file"` // a key on each line
	Keys    []string `yaml:"keys"`     // the same without a file; meant for its variable
}

// Log configures the server's log.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // text, json; auto is text on a terminal
}

// Default returns the configuration without any file, variable or flag.
func Default() Config {
	chat := Defaults(LLM)
	chat.MaxDepth = 1000
	chat.Retry.For = 2 * time.Minute
	return Config{
		Listen:          "127.0.0.1:8080",
		WatchTTL:        24 * time.Hour,
		Data:            "./meanwhile-data",
		MinFreeBytes:    64 << 20,
		DatabaseMigrate: true,
		ShutdownGrace:   25 * time.Second,
		Queues:          map[string]Queue{"chat": chat, "sim": Defaults(Sim)},
		Connections:     Connections{PerAddress: 1024},
		Bodies:          Bodies{MaxBytes: 256 << 20, CallerBytes: 128 << 20},
		Files:           Files{MaxBytes: 512 << 20, CacheBytes: 4 << 30},
		Callbacks:       Callbacks{Timeout: 15 * time.Second, Concurrency: 512, PerReceiver: 32},
		Retention:       Retention{Failed: 7 * 24 * time.Hour, Others: 24 * time.Hour, MaxBytes: 16 << 30, UserBytes: 4 << 30},
		Log:             Log{Level: "info", Format: "auto"},
		Tracing:         Tracing{Ratio: 1},
	}
}

// Loopback reports whether only programs on this machine can reach a listen address.
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
