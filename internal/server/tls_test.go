package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/meanwhile-run/meanwhile/internal/config"
)

// authority is a private authority that signs the certificates of a test.
type authority struct {
	t     *testing.T
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	files config.TLS
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	dir := t.TempDir()
	a := &authority{t: t, files: config.TLS{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().Add(time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(raw)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// issue writes a certificate with a serial number, and its key.
func (a *authority) issue(serial int64) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	raw, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{a.files.Cert: {Type: "CERTIFICATE", Bytes: raw}, a.files.Key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
}

// client makes a client that trusts the authority.
func (a *authority) client(http2 bool) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: http2}
	if !http2 {
		transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	a.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (a *authority) serve(change func(*config.Config)) *testServer {
	a.t.Helper()
	return serve(a.t, func(c *config.Config) {
		c.TLS = a.files
		if change != nil {
			change(c)
		}
	})
}

// do makes a request over a client. The caller closes the body.
func (a *authority) do(ctx context.Context, c *http.Client, method, url, body string, headers ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return c.Do(req)
}

// submit submits a job that says so many words, and returns its id.
func (a *authority) submit(c *http.Client, s *testServer, input string) string {
	a.t.Helper()
	res, err := a.do(a.t.Context(), c, "POST", s.URL()+"/v1/jobs", `{"queue":"sim","input":`+input+`}`)
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	var j struct{ ID string }
	if err := json.NewDecoder(res.Body).Decode(&j); err != nil || res.StatusCode != http.StatusAccepted {
		a.t.Fatal(res.Status, err)
	}
	return j.ID
}

// Long polls, streams and sockets work with TLS, over HTTP/2 and over HTTP/1.1.
func TestAPIsWorkOverTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.issue(2)
	s := a.serve(nil)
	if !strings.HasPrefix(s.URL(), "https://") {
		t.Errorf("the address is %s", s.URL())
	}
	for proto, c := range map[string]*http.Client{"HTTP/2.0": a.client(true), "HTTP/1.1": a.client(false)} {
		id := a.submit(c, s, `{"tokens":5}`)
		res, err := a.do(t.Context(), c, "GET", s.URL()+"/v1/jobs/"+id, "", "Prefer", "wait=60")
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.Proto != proto || !strings.Contains(string(text), `"succeeded"`) {
			t.Errorf("a long poll over %s is %s over %s", proto, text, res.Proto)
		}
		res, err = a.do(t.Context(), c, "GET", s.URL()+"/v1/jobs/"+id+"/events", "")
		if err != nil {
			t.Fatal(err)
		}
		text, err = io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || !strings.Contains(string(text), "event: done") {
			t.Errorf("a stream over %s is %s, %v", proto, text, err)
		}
	}
	conn, res, err := websocket.Dial(t.Context(), strings.Replace(s.URL(), "https", "wss", 1)+"/v1/watch", &websocket.DialOptions{HTTPClient: a.client(false)})
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("a socket is %s", res.Status)
	}
	_ = conn.CloseNow()
	s.quit()
}

// serial returns the serial number of the certificate that a new connection gets.
func (a *authority) serial(s *testServer) int64 {
	a.t.Helper()
	c := a.client(true)
	defer c.CloseIdleConnections()
	res, err := a.do(a.t.Context(), c, "GET", s.URL()+"/healthz", "")
	if err != nil {
		a.t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.TLS.PeerCertificates[0].SerialNumber.Int64()
}

// New files serve new connections, broken ones change nothing, and requests go on meanwhile.
func TestCertificateIsReplacedUnderLoad(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.issue(2)
	s := a.serve(nil)
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for c := a.client(true); ctx.Err() == nil; {
				res, err := a.do(ctx, c, "GET", s.URL()+"/healthz", "")
				if err != nil {
					if ctx.Err() == nil {
						t.Errorf("a request failed: %v", err)
					}
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
		})
	}
	if got := a.serial(s); got != 2 {
		t.Errorf("the certificate has the number %d", got)
	}
	a.issue(3)
	for a.serial(s) != 3 { // the server reads the files by itself
	}
	if err := os.WriteFile(a.files.Cert, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := &certificate{files: a.files, log: s.components.log}
	if _, err := broken.load(); err == nil {
		t.Error("a broken certificate was loaded")
	}
	if got := a.serial(s); got != 3 {
		t.Errorf("with broken files the certificate has the number %d", got)
	}
	a.issue(4)
	for a.serial(s) != 4 {
	}
	stop()
	load.Wait()
	s.quit()
}

// What cannot be used stops the start, and the error does not show the key.
func TestStartWithBrokenCertificate(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.issue(2)
	key, err := os.ReadFile(a.files.Key)
	if err != nil {
		t.Fatal(err)
	}
	a.issue(3)
	if err := os.WriteFile(a.files.Key, key, 0o600); err != nil { // of the other certificate
		t.Fatal(err)
	}
	for what, files := range map[string]config.TLS{"a missing file": {Cert: a.files.Cert + "x", Key: a.files.Key}, "another key": a.files} {
		_, err := openCertificate(files, nil)
		if err == nil || !strings.Contains(err.Error(), files.Cert) || strings.Contains(err.Error(), string(key[30:60])) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if c, err := openCertificate(config.TLS{}, nil); c != nil || err != nil {
		t.Errorf("without files: %v, %v", c, err)
	}
}

// A client that begins requests over one connection and resets them does not keep others from
// their answers, and leaves nothing behind.
func TestRapidResetsAreBounded(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.issue(2)
	s := a.serve(nil)
	id := a.submit(a.client(true), s, `{"duration_ms":600000}`)
	flood := a.client(true)
	var resets sync.WaitGroup
	for range 20 {
		resets.Go(func() {
			for range 100 {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
				res, err := a.do(ctx, flood, "GET", s.URL()+"/v1/jobs/"+id, "", "Prefer", "wait=60")
				if err == nil {
					_ = res.Body.Close()
				}
				cancel()
			}
		})
	}
	other := a.client(true)
	for range 20 {
		res, err := a.do(t.Context(), other, "GET", s.URL()+"/v1/jobs/"+id, "")
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatal(res, err)
		}
		_ = res.Body.Close()
	}
	resets.Wait()
	flood.CloseIdleConnections()
	s.quit() // its test fails if a handler is left
}

// One connection has at most maxStreams requests at a time: for more, a client needs another one,
// which counts against the limits of connections.
func TestStreamsOfAConnectionAreBounded(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.issue(2)
	s := a.serve(nil)
	c := a.client(true)
	id := a.submit(c, s, `{"duration_ms":600000}`)
	ctx, stop := context.WithCancel(t.Context())
	var streams sync.WaitGroup
	began := make(chan struct{})
	for range 2 * maxStreams {
		streams.Go(func() {
			res, err := a.do(ctx, c, "GET", s.URL()+"/v1/jobs/"+id+"/events", "")
			began <- struct{}{}
			if err != nil {
				t.Error(err)
				return
			}
			<-ctx.Done()
			_ = res.Body.Close()
		})
	}
	for range 2 * maxStreams {
		<-began
	}
	if open := s.components.conns.statsNow().Open; open < 2 {
		t.Errorf("%d connection has %d streams", open, 2*maxStreams)
	}
	stop()
	streams.Wait()
	s.quit()
}
