package netguard

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// codeOf returns the code of a guard's error, "" for nil.
func codeOf(t *testing.T, err error) Code {
	t.Helper()
	if err == nil {
		return ""
	}
	var e *Error
	if !errors.As(err, &e) || e.Code == "" || e.Message == "" {
		t.Fatalf("%v is no error of a guard with a code and a sentence", err)
	}
	return e.Code
}

func TestOnlyPublicAddressesAreAllowed(t *testing.T) {
	t.Parallel()
	for address, public := range map[string]bool{
		"93.184.216.34": true, "1.1.1.1": true, "172.15.255.255": true, "172.32.0.1": true, "100.128.0.1": true, "223.255.255.255": true,
		"2606:2800:220:1:248:1893:25c8:1946": true, "2a00:1450::1": true, "2001:4860:4860::8888": true,
		"::ffff:93.184.216.34":   true, // mapped
		"64:ff9b::93.184.216.34": true, // a public address behind a translator

		"0.0.0.0": false, "0.1.2.3": false, "10.0.0.1": false, "10.255.255.255": false, "127.0.0.1": false, "127.9.9.9": false,
		"100.64.0.1": false, "100.127.255.255": false, "169.254.1.1": false, "169.254.169.254": false,
		"172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false, "192.0.0.1": false, "192.0.2.1": false,
		"192.88.99.1": false, "198.18.0.1": false, "198.19.255.255": false, "198.51.100.1": false, "203.0.113.1": false,
		"224.0.0.1": false, "239.255.255.250": false, "240.0.0.1": false, "255.255.255.255": false, "168.63.129.16": false,

		"::": false, "::1": false, "::127.0.0.1": false, "::ffff:0:127.0.0.1": false,
		"::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "::ffff:169.254.169.254": false,
		"64:ff9b::127.0.0.1": false, "64:ff9b::10.0.0.1": false, "64:ff9b::169.254.169.254": false,
		"64:ff9b:1::93.184.216.34": false, "64:ff9b:1:7f00:0:100::": false,
		"2002:7f00:1::": false, "2002:5db8:d822::1": false, // 6to4
		"2001:0:4136:e378:8000:63bf:3fff:fdd2": false, // Teredo
		"2001:2::1":                            false, "2001:10::1": false, "2001:20::1": false, "2001:db8::1": false, "3fff::1": false,
		"2a00:1450::5efe:10.0.0.1": false, "2a00:1450::200:5efe:127.0.0.1": false, // ISATAP
		"100::1": false, "5f00::1": false, "fc00::1": false, "fd00:ec2::254": false, "fd12:3456::1": false,
		"fe80::1": false, "fec0::1": false, "ff02::1": false, "4000::1": false,
	} {
		addr := netip.MustParseAddr(address)
		err := new(Guard).checkAddress(address, netip.AddrPortFrom(addr, 443), false)
		if (err == nil) != public {
			t.Errorf("%s: %v, want public: %v", address, err, public)
		}
		if !public && codeOf(t, err) != RefusedAddress {
			t.Errorf("%s: the code is %s", address, codeOf(t, err))
		}
	}
}

// Loopback is what the own machine has, in every form of it and in no other.
func TestLoopbackMayBeAllowed(t *testing.T) {
	t.Parallel()
	g := &Guard{Loopback: true}
	for address, allowed := range map[string]bool{
		"127.0.0.1": true, "127.1.2.3": true, "::1": true, "::ffff:127.0.0.1": true,
		"64:ff9b::127.0.0.1": false, "0.0.0.0": false, "::": false, "10.0.0.1": false, "fe80::1": false, "169.254.169.254": false,
	} {
		err := g.checkAddress(address, netip.AddrPortFrom(netip.MustParseAddr(address), 8000), true)
		if (err == nil) != allowed {
			t.Errorf("%s: %v, want allowed: %v", address, err, allowed)
		}
	}
}

func TestAllowList(t *testing.T) {
	t.Parallel()
	allow, err := ParseAllow([]string{"10.0.0.0/8", "192.168.1.7:8080", "fd00::/16", "[fd99::7]:90", "169.254.0.0/16", "hooks.Internal.", "queue.internal:81", "::ffff:172.16.0.0/112"})
	if err != nil {
		t.Fatal(err)
	}
	g := &Guard{Allow: allow}
	for _, c := range []struct {
		host, address string
		allowed       bool
	}{
		{"a.example", "10.1.2.3:25", true},
		{"a.example", "[::ffff:10.1.2.3]:80", true},
		{"a.example", "[64:ff9b::a01:203]:80", true},
		{"a.example", "11.1.2.3:80", false}, // plain, and public
		{"a.example", "192.168.1.7:8080", true},
		{"a.example", "192.168.1.7:8081", false},
		{"a.example", "192.168.1.8:8080", false},
		{"a.example", "172.16.0.9:80", true},
		{"a.example", "172.17.0.9:80", false},
		{"a.example", "[fd00::1]:80", true},
		{"a.example", "[fd99::7]:90", true},
		{"a.example", "[fd99::7]:91", false},
		{"a.example", "[fd00::1%eth0]:80", false},
		{"hooks.internal", "172.31.0.9:5000", true},
		{"other.hooks.internal", "172.31.0.9:5000", false},
		{"queue.internal", "127.0.0.1:81", true},
		{"queue.internal", "127.0.0.1:80", false},
		// Nothing allows the metadata services.
		{"a.example", "169.254.1.1:80", true},
		{"a.example", "169.254.169.254:80", false},
		{"hooks.internal", "169.254.169.254:80", false},
		{"hooks.internal", "[::ffff:169.254.169.254]:80", false},
		{"hooks.internal", "[64:ff9b::a9fe:a9fe]:80", false},
		{"a.example", "[fd00:ec2::254]:80", false},
	} {
		err := g.checkAddress(c.host, netip.MustParseAddrPort(c.address), true)
		if (err == nil) != c.allowed {
			t.Errorf("%s at %s: %v, want allowed: %v", c.host, c.address, err, c.allowed)
		}
	}
	for _, bad := range []string{"", "10.0.0.0/33", "a b", "*.internal", "hooks:0", "hooks:99999", "hooks:http", "https://hooks.internal", "fe80::1%eth0", "[::1", "127.1"} {
		if _, err := ParseAllow([]string{"10.0.0.7", bad}); err == nil || !strings.Contains(err.Error(), "such as 10.0.0.0/8") {
			t.Errorf("the list takes %q: %v", bad, err)
		}
	}
}

func TestCheckURL(t *testing.T) {
	t.Parallel()
	allow, err := ParseAllow([]string{"hooks.internal:8000"})
	if err != nil {
		t.Fatal(err)
	}
	strict, local := &Guard{Allow: allow}, &Guard{Loopback: true}
	for _, c := range []struct {
		url  string
		want Code
	}{
		{"https://app.example.com/callback?job=1", ""},
		{"https://app.example.com:8443/", ""},
		{"https://app.example.com.:443", ""},
		{"https://xn--bcher-kva.example/", ""},
		{"https://93.184.216.34/", ""},
		{"https://[2606:2800:220:1:248:1893:25c8:1946]/", ""},
		{"http://hooks.internal:8000/", ""},
		{"HTTPS://APP.EXAMPLE.COM/", ""},

		{"", BadURL}, {"/callback", BadURL}, {"//app.example.com/", BadURL}, {"ftp://app.example.com/", BadURL}, {"file:///etc/passwd", BadURL},
		{"https:app.example.com", BadURL}, {"https://", BadURL}, {"https://:443/", BadURL}, {"https://app.example.com:0/", BadURL},
		{"https://app.example.com:65536/", BadURL}, {"https://app.example.com:https/", BadURL},
		{"https://user@app.example.com/", BadURL}, {"https://user:secret@app.example.com/", BadURL}, {"https://app.example.com@127.0.0.1/", BadURL},
		{"https://app.example.com/#part", BadURL}, {"https://bücher.example/", BadURL}, {"https://app.example.com/a b", BadURL},
		{"https://app.example.com/\r\nX-Evil: 1", BadURL}, {"https://app..example.com/", BadURL}, {"https://app.example.com\\@127.0.0.1/", BadURL},
		{"https://１２７.0.0.1/", BadURL}, {"https://%31%32%37.0.0.1/", BadURL},
		{"https://" + strings.Repeat("a", maxURL), BadURL}, {"https://" + strings.Repeat("a", 64) + ".example/", BadURL},
		// Forms of 127.0.0.1 that some resolvers take.
		{"https://127.1/", BadURL}, {"https://2130706433/", BadURL}, {"https://0x7f000001/", BadURL}, {"https://0x7f.0.0.1/", BadURL},
		{"https://0177.0.0.1/", BadURL}, {"https://127.0.0.0x1/", BadURL}, {"https://127.0.0.01/", BadURL}, {"https://127.0.0.1./", RefusedAddress},

		{"http://app.example.com/", NeedsHTTPS}, {"http://93.184.216.34/", NeedsHTTPS}, {"http://hooks.internal:8001/", NeedsHTTPS},
		{"https://app.example.com:22/", RefusedPort}, {"https://app.example.com:25/", RefusedPort}, {"https://93.184.216.34:6667/", RefusedPort},
		{"https://localhost/", RefusedAddress}, {"https://LOCALHOST./", RefusedAddress}, {"https://app.localhost/", RefusedAddress},
		{"https://127.0.0.1/", RefusedAddress}, {"https://[::1]/", RefusedAddress}, {"https://[::ffff:127.0.0.1]/", RefusedAddress},
		{"https://[fe80::1%25eth0]/", RefusedAddress}, {"https://10.0.0.1/", RefusedAddress}, {"https://169.254.169.254/latest", RefusedAddress},
		{"https://0.0.0.0/", RefusedAddress}, {"https://[::]/", RefusedAddress},
	} {
		if _, err := strict.CheckURL(c.url); codeOf(t, err) != c.want {
			t.Errorf("%q: %v, want the code %q", c.url, err, c.want)
		}
	}
	for url, want := range map[string]Code{
		"http://localhost:8000/": "", "http://127.0.0.1:8000/": "", "http://[::1]:22/": "", "http://app.localhost:3000/": "",
		"http://10.0.0.1/": RefusedAddress, "http://169.254.169.254/": RefusedAddress, "http://app.example.com/": NeedsHTTPS,
	} {
		if _, err := local.CheckURL(url); codeOf(t, err) != want {
			t.Errorf("with loopback %q: %v, want the code %q", url, err, want)
		}
	}
}

func FuzzCheckURL(f *testing.F) {
	for _, url := range []string{"https://app.example.com/", "http://[::1]:80/", "https://a@b/#c", "https://127.1/"} {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := new(Guard).CheckURL(text)
		if err != nil {
			return
		}
		if u.Scheme != "https" || u.User != nil {
			t.Errorf("%q is allowed", text)
		}
		if addr, err := netip.ParseAddr(canonicalHost(u.Hostname())); err == nil && !addr.Unmap().IsGlobalUnicast() {
			t.Errorf("%q is allowed", text)
		}
	})
}
