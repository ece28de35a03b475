package config

import (
	"errors"
	"net"
	"net/url"
	"strings"
)

// maxURL bounds the file that holds the URL of a database.
const maxURL = 16 << 10

// readDatabase replaces database_file by the URL in it.
func (l *loader) readDatabase(cfg *Config) {
	if cfg.DatabaseFile == "" {
		return
	}
	if cfg.Database != "" {
		l.fail("database_file", "%s names the database too; set one of the two", l.where["database"])
		return
	}
	text, err := readBounded(cfg.DatabaseFile, maxURL)
	if err != nil {
		l.fail("database_file", "cannot read the URL of the database from %s: %v", cfg.DatabaseFile, err)
		return
	}
	cfg.Database = strings.TrimSpace(string(text))
	l.where["database"] = l.where["database_file"]
	l.must(cfg.Database != "", "database_file", "%s is empty; it must hold the URL of the database", cfg.DatabaseFile)
}

func (l *loader) checkDatabase(cfg *Config) {
	l.readDatabase(cfg)
	if cfg.Database == "" {
		return
	}
	if err := CheckDatabase(cfg.Database); err != nil {
		l.fail("database", "%v", err)
	}
}

// CheckDatabase refuses what is no URL of a database. The error does not show it: it may hold a
// password.
func CheckDatabase(database string) error {
	u, err := url.Parse(database)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return errors.New("this must be the URL of a PostgreSQL database, such as postgres://meanwhile@db.example.com/meanwhile; in a password, %3A stands for a colon, and so on")
	}
	return nil
}

// DatabasePlace returns the host and the name of a database, for messages: its URL may hold a
// password.
func DatabasePlace(database string) string {
	u, err := url.Parse(database)
	if err != nil {
		return "the configured database"
	}
	name, host := strings.TrimPrefix(u.Path, "/"), u.Host
	query := u.Query()
	if host == "" {
		host = query.Get("host")
		if port := query.Get("port"); port != "" && !strings.HasPrefix(host, "/") {
			host = net.JoinHostPort(host, port)
		}
	}
	switch {
	case name == "" && host == "":
		return "the database of this machine"
	case name == "":
		return "the database at " + host
	case host == "":
		return "the database " + name
	}
	return "the database " + name + " at " + host
}
