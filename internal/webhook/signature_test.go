package webhook

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"
)

// vectorSecret and the signature in TestVector are those of the specification's own libraries.
const vectorSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func secret(t *testing.T, text string) Secret {
	t.Helper()
	s, err := ParseSecret(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestVector(t *testing.T) {
	t.Parallel()
	at := time.Unix(1614265330, 999_999_999)
	got := Sign([]Secret{secret(t, vectorSecret)}, "msg_p5jXN8AQM9LWM0D4loKWxJek", at, []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("the signature is %s, want %s", got, want)
	}
}

func headers(id, timestamp, signature string) http.Header {
	h := http.Header{}
	for name, value := range map[string]string{HeaderID: id, HeaderTimestamp: timestamp, HeaderSignature: signature} {
		if value != "" {
			h.Set(name, value)
		}
	}
	return h
}

func TestVerify(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	old, current, other := NewSecret(), NewSecret(), NewSecret()
	body := []byte(`{"type":"job.succeeded"}`)
	sign := func(at time.Time, secrets ...Secret) http.Header {
		return headers("job_1", fmt.Sprint(at.Unix()), Sign(secrets, "job_1", at, body))
	}
	good := sign(now, current)
	signature := good.Get(HeaderSignature)
	for _, c := range []struct {
		name   string
		header http.Header
		body   string
		want   error
	}{
		{"one signature", good, string(body), nil},
		{"two signatures, the second ours", sign(now, old, current), string(body), nil},
		{"two signatures, the first ours", sign(now, current, old), string(body), nil},
		{"versions and texts that are unknown", headers("job_1", fmt.Sprint(now.Unix()), "v1a,abc v2 nonsense v1,??? "+signature), string(body), nil},
		{"five minutes old", sign(now.Add(-Tolerance), current), string(body), nil},
		{"five minutes new", sign(now.Add(Tolerance), current), string(body), nil},

		{"another secret", sign(now, other), string(body), ErrNoMatch},
		{"another body", good, string(body) + " ", ErrNoMatch},
		{"another id", headers("job_2", fmt.Sprint(now.Unix()), signature), string(body), ErrNoMatch},
		{"another time", headers("job_1", fmt.Sprint(now.Unix()-1), signature), string(body), ErrNoMatch},
		{"another version", headers("job_1", fmt.Sprint(now.Unix()), strings.Replace(signature, "v1,", "v1a,", 1)), string(body), ErrNoMatch},
		{"no version", headers("job_1", fmt.Sprint(now.Unix()), strings.TrimPrefix(signature, "v1,")), string(body), ErrNoMatch},
		{"a part of the signature", headers("job_1", fmt.Sprint(now.Unix()), signature[:20]), string(body), ErrNoMatch},
		{"too old", sign(now.Add(-Tolerance-time.Second), current), string(body), ErrTooOld},
		{"too new", sign(now.Add(Tolerance+time.Second), current), string(body), ErrTooNew},
		{"no number", headers("job_1", "yesterday", signature), string(body), ErrBadTimestamp},
		{"no id", headers("", fmt.Sprint(now.Unix()), signature), string(body), ErrMissingHeader},
		{"no timestamp", headers("job_1", "", signature), string(body), ErrMissingHeader},
		{"no signature", headers("job_1", fmt.Sprint(now.Unix()), ""), string(body), ErrMissingHeader},
	} {
		if err := Verify(current, c.header, []byte(c.body), now); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if n := strings.Count(sign(now, old, current).Get(HeaderSignature), "v1,"); n != 2 {
		t.Errorf("two secrets make %d signatures", n)
	}
}

func TestParseSecret(t *testing.T) {
	t.Parallel()
	s := NewSecret()
	if again := secret(t, s.Reveal()); !bytes.Equal(again.key, s.key) || len(s.key) != newKey {
		t.Errorf("the secret becomes another one")
	}
	of := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for text, good := range map[string]bool{
		"whsec_" + of(24): true, "whsec_" + of(64): true, "whsec_" + of(23): false, "whsec_" + of(65): false,
		of(32): false, "whsk_" + of(32): false, "whsec_": false, "": false, "whsec_" + of(32) + "\n": false, "whsec_" + strings.TrimRight(of(32), "="): false,
		"whsec_" + base64.URLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 32)): false,
	} {
		_, err := ParseSecret(text)
		if (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil && len(text) > 12 && strings.Contains(err.Error(), text[6:]) {
			t.Errorf("the error repeats the secret: %v", err)
		}
	}
}

func TestSecretIsNotShownByAccident(t *testing.T) {
	t.Parallel()
	s := NewSecret()
	var out bytes.Buffer
	fmt.Fprintf(&out, "%v %+v %#v %s %q %x", s, s, s, s, s, s)
	fmt.Fprintf(&out, "%v %+v %#v", []Secret{s}, struct{ S Secret }{s}, &s)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("secret", "secret", s, "all", []Secret{s})
	slog.New(slog.NewTextHandler(&out, nil)).Info("secret", "secret", s, "all", []Secret{s})
	if err := json.NewEncoder(&out).Encode(struct{ S Secret }{s}); err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{base64.StdEncoding.EncodeToString(s.key), fmt.Sprintf("%x", s.key), fmt.Sprint(s.key), string(s.key)} {
		if strings.Contains(out.String(), form) {
			t.Errorf("the secret is in %s", out.String())
		}
	}
	if hint := s.Hint(); len(hint) > len("…abcd") || !strings.HasSuffix(s.Reveal(), strings.TrimPrefix(hint, "…")) {
		t.Errorf("the hint is %s", hint)
	}
}
