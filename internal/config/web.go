package config

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Public returns the URL at which browsers reach the server; nil when it is not set.
func (c Config) Public() *url.URL {
	u, ok := parseBaseURL(c.PublicURL)
	if !ok {
		return nil
	}
	return u
}

// Proxies returns the trusted proxies as networks. An address becomes a network with only
// that address.
func (c Config) Proxies() []netip.Prefix {
	var list []netip.Prefix
	for _, text := range c.TrustedProxies {
		if p, ok := parseNetwork(text); ok {
			list = append(list, p)
		}
	}
	return list
}

func (l *loader) checkWeb(cfg *Config) {
	if cfg.PublicURL != "" {
		_, ok := parseBaseURL(cfg.PublicURL)
		l.must(ok, "public_url", "this must be the URL by which browsers reach the server, such as https://jobs.example.com, not %s", job.Quote(cfg.PublicURL))
	}
	for _, host := range cfg.AllowedHosts {
		l.must(host == "*" || isHostName(host), "allowed_hosts", "this must be names of this server, such as jobs.example.com, without a port, or * for any, not %s", job.Quote(host))
	}
	for _, origin := range cfg.AllowedOrigins {
		l.must(origin == "*" || isOrigin(origin), "allowed_origins",
			"this must be origins as browsers write them, such as https://app.example.com or http://localhost:3000, or * for all, not %s", job.Quote(origin))
	}
	for _, network := range cfg.TrustedProxies {
		_, ok := parseNetwork(network)
		l.must(ok, "trusted_proxies", "this must be addresses or networks, such as 10.0.0.7 or 10.0.0.0/8, not %s", job.Quote(network))
	}
	l.must(cfg.WatchTTL >= time.Second, "watch_ttl_s", "this must be at least 1 second")
}

// parseBaseURL parses a URL to which paths are appended.
func parseBaseURL(text string) (*url.URL, bool) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, false
	}
	return u, u.User == nil && u.RawQuery == "" && u.Fragment == ""
}

// isOrigin reports whether a text is an origin in the form of browsers: without a path, a
// default port or a pattern.
func isOrigin(text string) bool {
	u, ok := parseBaseURL(text)
	defaultPort := map[string]string{"http": "80", "https": "443"}
	return ok && text == u.Scheme+"://"+u.Host && text == strings.ToLower(text) && !strings.Contains(text, "*") && u.Port() != defaultPort[u.Scheme]
}

// isHostName reports whether a text is a host name: labels of letters, digits, - and _.
func isHostName(text string) bool {
	for label := range strings.SplitSeq(text, ".") {
		if label == "" || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return len(text) <= 253
}

func parseNetwork(text string) (netip.Prefix, bool) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), true
	}
	p, err := netip.ParsePrefix(text)
	return p, err == nil
}

// listOf splits a text at its commas.
func listOf(text string) []string {
	items := strings.Split(text, ",")
	for i := range items {
		items[i] = strings.TrimSpace(items[i])
	}
	return slices.DeleteFunc(items, func(item string) bool { return item == "" })
}
