package client

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// TokenOptions are the options of a new [UserToken]. The zero value is a token for 15
// minutes, which may be renewed for a day, for all queues.
type TokenOptions struct {
	// TTL is how long the token is valid, from a second to a day; 0 for 15 minutes.
	TTL time.Duration
	// Renewable is how long the page that holds the token may exchange it for another
	// one, up to 30 days; 0 for a day.
	Renewable time.Duration
	// Queues are the queues in which the token may submit jobs, up to 16; none for all.
	Queues []string
}

// UserToken is a token with which a web page of another origin asks, watches, cancels and
// lists what is one user's. The server does not store it, so that it cannot be revoked.
type UserToken struct {
	Token          string    `json:"token"` // for the header Authorization: Bearer
	User           string    `json:"user"`
	ExpiresAt      time.Time `json:"expires_at"`
	RenewableUntil time.Time `json:"renewable_until"`
}

// CreateToken makes a token for the user of the client; see [WithUser]. The error has
// the code "forbidden" where the server does not believe the client about its user, and
// is [CodeUnknownQueue] for an unknown queue.
func (c *Client) CreateToken(ctx context.Context, o TokenOptions) (*UserToken, error) {
	body, err := json.Marshal(struct {
		TTL       float64  `json:"ttl_s,omitempty"`
		Renewable float64  `json:"renewable_s,omitempty"`
		Queues    []string `json:"queues,omitempty"`
	}{o.TTL.Seconds(), o.Renewable.Seconds(), o.Queues})
	if err != nil {
		return nil, err
	}
	token := new(UserToken)
	if _, err := c.json(ctx, &call{method: http.MethodPost, path: "/v1/tokens", body: body}, token); err != nil {
		return nil, err
	}
	return token, nil
}
