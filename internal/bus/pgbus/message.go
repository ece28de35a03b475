package pgbus

import (
	"encoding/base64"
	"encoding/binary"
	"errors"

	"github.com/meanwhile-run/meanwhile/internal/bus"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A message is the payload of one NOTIFY: base64, because a payload is text, of
//
//	1 byte   the kind: 'n' is a notice, 'p' a ping
//	8 bytes  the sender: a member, or the bus that pings
//	a notice: varint n, then n queues as varint length and name; then jobs of 16 bytes each
//	a ping:   8 bytes, its number
//
// Postgres takes payloads below 8,000 bytes.
const (
	kindNotice = 'n'
	kindPing   = 'p'
	maxMessage = 5_900 // bytes before base64
)

var errMessage = errors.New("pgbus: this is no message of this version")

// encodeNotices makes as many messages as the notice needs. A queue whose name does not fit into
// a message is left out.
func encodeNotices(from memberID, p *pending) (messages []string) {
	queues, jobs := make([]string, 0, len(p.queues)), make([]job.ID, 0, len(p.jobs))
	for name := range p.queues {
		if len(name) < maxMessage/2 {
			queues = append(queues, name)
		}
	}
	for id := range p.jobs {
		jobs = append(jobs, id)
	}
	for len(queues)+len(jobs) > 0 {
		left, n := maxMessage-len(from)-1-binary.MaxVarintLen64, 0
		for n < len(queues) && len(queues[n])+binary.MaxVarintLen64 <= left {
			left -= len(queues[n]) + binary.MaxVarintLen64
			n++
		}
		k := min(left/len(job.ID{}), len(jobs))
		messages = append(messages, encodeNotice(from, bus.Notice{Queues: queues[:n], Jobs: jobs[:k]}))
		queues, jobs = queues[n:], jobs[k:]
	}
	return messages
}

func encodeNotice(from memberID, n bus.Notice) string {
	raw := append([]byte{kindNotice}, from[:]...)
	raw = binary.AppendUvarint(raw, uint64(len(n.Queues)))
	for _, name := range n.Queues {
		raw = binary.AppendUvarint(raw, uint64(len(name)))
		raw = append(raw, name...)
	}
	for i := range n.Jobs {
		raw = append(raw, n.Jobs[i][:]...)
	}
	return base64.RawStdEncoding.EncodeToString(raw)
}

func encodePing(from memberID, number uint64) string {
	raw := append([]byte{kindPing}, from[:]...)
	return base64.RawStdEncoding.EncodeToString(binary.BigEndian.AppendUint64(raw, number))
}

// decode reads a message. Anybody who may connect to the database can send one, so nothing in it
// is believed.
func decode(payload string) (kind byte, from memberID, n bus.Notice, ping uint64, err error) {
	raw, err := base64.RawStdEncoding.DecodeString(payload)
	if err != nil || len(raw) < 1+len(from) {
		return 0, from, n, 0, errMessage
	}
	kind = raw[0]
	raw = raw[1:]
	raw = raw[copy(from[:], raw):]
	switch {
	case kind == kindPing && len(raw) == 8:
		return kind, from, n, binary.BigEndian.Uint64(raw), nil
	case kind == kindNotice:
		n, err = decodeNotice(raw)
		return kind, from, n, 0, err
	}
	return 0, from, n, 0, errMessage
}

func decodeNotice(raw []byte) (n bus.Notice, err error) {
	queues, size := binary.Uvarint(raw)
	if size <= 0 || queues > uint64(len(raw)) { // each takes at least a byte
		return n, errMessage
	}
	raw = raw[size:]
	for range queues {
		length, size := binary.Uvarint(raw)
		if size <= 0 || length > uint64(len(raw)-size) {
			return n, errMessage
		}
		n.Queues = append(n.Queues, string(raw[size:size+int(length)]))
		raw = raw[size+int(length):]
	}
	if len(raw)%len(job.ID{}) != 0 {
		return n, errMessage
	}
	for ; len(raw) > 0; raw = raw[len(job.ID{}):] {
		n.Jobs = append(n.Jobs, job.ID(raw[:len(job.ID{})]))
	}
	return n, nil
}
