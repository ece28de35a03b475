package config

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWebKeysAreParsed(t *testing.T) {
	t.Parallel()
	cfg := mustLoad(t, `
public_url: https://jobs.example.com/m
allowed_origins: ["https://app.example.com", "http://[::1]:3000"]
trusted_proxies: [10.0.0.7, "2001:db8::/32"]
watch_ttl_s: 60
`)
	if cfg.Public().Host != "jobs.example.com" || len(cfg.AllowedOrigins) != 2 || cfg.WatchTTL != time.Minute {
		t.Errorf("%+v", cfg)
	}
	if want := []netip.Prefix{netip.MustParsePrefix("10.0.0.7/32"), netip.MustParsePrefix("2001:db8::/32")}; !slices.Equal(cfg.Proxies(), want) {
		t.Errorf("%v", cfg.Proxies())
	}
	if cfg := Default(); cfg.Public() != nil || cfg.Proxies() != nil {
		t.Errorf("the default trusts %v", cfg.Proxies())
	}
}

func TestVariableSetsListWithCommas(t *testing.T) {
	t.Parallel()
	cfg := mustLoad(t, "allowed_origins: ['*']", "MEANWHILE_ALLOWED_ORIGINS=https://a.example, https://b.example,", "MEANWHILE_TRUSTED_PROXIES=")
	if got := strings.Join(cfg.AllowedOrigins, " "); got != "https://a.example https://b.example" || len(cfg.TrustedProxies) != 0 {
		t.Errorf("%q, %q", got, cfg.TrustedProxies)
	}
}

func TestWebKeysAreChecked(t *testing.T) {
	t.Parallel()
	for line, key := range map[string]string{
		"public_url: jobs.example.com":                  "public_url",
		"public_url: ftp://jobs.example.com":            "public_url",
		"public_url: https://ann:pw@jobs.example.com":   "public_url",
		"public_url: 'https://jobs.example.com?a=b'":    "public_url",
		"public_url: 'https://:443'":                    "public_url",
		"allowed_origins: [app.example.com]":            "allowed_origins",
		"allowed_origins: ['https://app.example.com/']": "allowed_origins",
		"allowed_origins: ['https://APP.example.com']":  "allowed_origins",
		"allowed_origins: ['https://a.example:443']":    "allowed_origins",
		"allowed_origins: ['https://*.example.com']":    "allowed_origins",
		"allowed_origins: ['null']":                     "allowed_origins",
		"trusted_proxies: [localhost]":                  "trusted_proxies",
		"trusted_proxies: [10.0.0.0/33]":                "trusted_proxies",
		"watch_ttl_s: 0":                                "watch_ttl_s",
	} {
		if _, err := load(t, line); err == nil || !strings.Contains(err.Error(), "m.yaml:1: "+key+": this must be") {
			t.Errorf("%s: %v", line, err)
		}
	}
}
