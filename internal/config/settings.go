package config

import (
	"iter"
	"reflect"
	"strings"
)

// Flag describes a flag of the serve command that sets a key.
type Flag struct {
	Name  string // without the dashes
	Key   string
	Usage string
	Bool  bool // without a value it means true
	On    bool // the default of a Bool
}

// Flags returns the flags, in the order of the help.
func Flags() []Flag {
	return []Flag{
		{Name: "listen", Key: "listen", Usage: "the host:port to listen on; port 0 chooses a free port"},
		{Name: "data", Key: "data", Usage: "the directory that holds everything; created if it is missing"},
		{Name: "database", Key: "database", Usage: "the postgres:// URL of a database that several servers may share; the directory is then a cache"},
		{Name: "database-migrate", Key: "database_migrate", Usage: "bring the schema of the database up to date at the start", Bool: true, On: true},
		{Name: "insecure", Key: "insecure", Usage: "allow listening beyond this machine without keys, where anyone who connects may do anything", Bool: true},
		{Name: "shutdown-grace", Key: "shutdown_grace_s", Usage: "how many seconds running work may finish once the server stops"},
		{Name: "log-level", Key: "log.level", Usage: "debug, info, warn or error"},
		{Name: "log-format", Key: "log.format", Usage: "text, json, or auto: text on a terminal"},
		{Name: "pprof", Key: "pprof", Usage: "answer /debug/pprof/ to programs on this machine", Bool: true},
	}
}

// Variable returns the name of the environment variable that sets a key. Keys of models
// and queues have none. A list is written with commas.
func Variable(key string) string {
	return "MEANWHILE_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// settings overlays variables and then flags on cfg.
func (l *loader) settings(cfg *Config, flags map[string]string) {
	known := []string{Variable("config")}
	for key, v := range leaves(reflect.ValueOf(cfg).Elem(), "") {
		known = append(known, Variable(key))
		if text, ok := l.env[Variable(key)]; ok {
			l.set(v, Variable(key), key, text)
		}
	}
	l.misspelt(known)
	for _, f := range Flags() {
		if text, ok := flags[f.Name]; ok {
			l.set(leafOf(cfg, f.Key), "--"+f.Name, f.Key, text)
		}
	}
}

func (l *loader) set(v reflect.Value, where, key, text string) {
	l.where[key] = where
	if err := setScalar(v, text); err != nil {
		l.problem(where, key, "%v", err)
	}
}

// leaves yields every key whose value is a scalar or a list of texts.
func leaves(v reflect.Value, prefix string) iter.Seq2[string, reflect.Value] {
	return func(yield func(key string, field reflect.Value) bool) {
		for _, name := range keysOf(v.Type()) {
			field, _ := fieldOf(v, name)
			key := join(prefix, name)
			switch field.Kind() {
			case reflect.Struct:
				for k, f := range leaves(field, key) {
					if !yield(k, f) {
						return
					}
				}
			case reflect.Map:
			case reflect.Slice:
				if field.Type() == listType && !yield(key, field) {
					return
				}
			default:
				if !yield(key, field) {
					return
				}
			}
		}
	}
}

func leafOf(cfg *Config, key string) reflect.Value {
	for k, v := range leaves(reflect.ValueOf(cfg).Elem(), "") {
		if k == key {
			return v
		}
	}
	panic("config: a flag for an unknown key: " + key)
}
