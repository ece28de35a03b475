package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of a delivery.
const (
	HeaderID        = "webhook-id"        // of the delivery, the same in all attempts
	HeaderTimestamp = "webhook-timestamp" // of the attempt, in seconds since 1970
	HeaderSignature = "webhook-signature" // one for each secret, with spaces between them
)

// Tolerance is how far the timestamp of a delivery may be from the receiver's clock.
const Tolerance = 5 * time.Minute

const signatureVersion = "v1," // HMAC-SHA256

// Sign returns the signatures of a body, one for each secret, as the header has them.
func Sign(secrets []Secret, id string, at time.Time, body []byte) string {
	timestamp := strconv.FormatInt(at.Unix(), 10)
	signatures := make([]string, len(secrets))
	for i, s := range secrets {
		signatures[i] = signatureVersion + base64.StdEncoding.EncodeToString(s.sum(id, timestamp, body))
	}
	return strings.Join(signatures, " ")
}

// sum is the HMAC of what is signed.
func (s Secret) sum(id, timestamp string, body []byte) []byte {
	h := hmac.New(sha256.New, s.key)
	h.Write([]byte(id + "." + timestamp + "."))
	h.Write(body)
	return h.Sum(nil)
}

// The reasons why a delivery is not to be believed.
var (
	ErrMissingHeader = errors.New("it lacks one of the headers " + HeaderID + ", " + HeaderTimestamp + " and " + HeaderSignature)
	ErrBadTimestamp  = errors.New("its " + HeaderTimestamp + " is no number of seconds")
	ErrTooOld        = errors.New("its " + HeaderTimestamp + " is more than 5 minutes in the past")
	ErrTooNew        = errors.New("its " + HeaderTimestamp + " is more than 5 minutes in the future")
	ErrNoMatch       = errors.New("no signature in its " + HeaderSignature + " was made with this secret")
)

// Verify returns nil if one of the signatures in the headers was made with the secret, within
// [Tolerance] of now.
func Verify(s Secret, h http.Header, body []byte, now time.Time) error {
	id, timestamp, signatures := h.Get(HeaderID), h.Get(HeaderTimestamp), h.Get(HeaderSignature)
	if id == "" || timestamp == "" || signatures == "" {
		return ErrMissingHeader
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return ErrBadTimestamp
	}
	// In whole seconds, which cannot overflow.
	switch age := now.Unix() - seconds; {
	case age > int64(Tolerance/time.Second):
		return ErrTooOld
	case age < -int64(Tolerance/time.Second):
		return ErrTooNew
	}
	want := s.sum(id, timestamp, body)
	for signature := range strings.FieldsSeq(signatures) {
		digits, ok := strings.CutPrefix(signature, signatureVersion)
		if got, err := base64.StdEncoding.DecodeString(digits); ok && err == nil && hmac.Equal(got, want) {
			return nil
		}
	}
	return ErrNoMatch
}
