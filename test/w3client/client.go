// Package w3client is W3's side of the integration API as W3 might write it: it signs a request, sends it, and sends it
// again until it knows what became of it. Tests and mockw3 use it. w3.mjs beside it is the same in JavaScript, for W3's
// developers; docs/integration.md says why each step is there.
package w3client

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/edgvoip/edgvoip/integration"
)

// BasePath is where the API is on its server.
const BasePath = "/api/v1/integration"

// Client speaks for one tenant. Its fields are set before it is used; it is safe for concurrent use.
type Client struct {
	URL          string // https://host:port
	Bearer, HMAC string
	HTTP         *http.Client // nil means http.DefaultClient

	// Attempts is how often a request is sent at most; zero means until the context ends.
	Attempts int
	// Pause is how long to wait before a request is sent for the second time; each further pause is twice as long, up
	// to 32 times, and half of it is random. Retry-After may ask for more. Zero means 250 ms.
	Pause time.Duration
}

// Request is what to send.
type Request struct {
	Method string
	Path   string // after BasePath, with its query
	Body   []byte // JSON, or nil
	Key    string // Idempotency-Key, or empty
}

// Answer is the last answer to a request.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	// Outcomes are what came back each time the request was sent: a status, or "no answer".
	Outcomes []string
}

// NoAnswer is the outcome of a request that was sent and not answered: nobody knows what became of it.
const NoAnswer = "no answer"

// Replayed tells whether the answer is that of an earlier request with the same key.
func (a Answer) Replayed() bool { return a.Header.Get("Idempotent-Replayed") == "true" }

// Do sends a request until there is an answer that sending it again would not change. The error is the last one, if
// there was no answer; what came back before is in the answer all the same.
func (c *Client) Do(ctx context.Context, r Request) (Answer, error) {
	var outcomes []string
	for {
		a, err := c.send(ctx, r)
		outcome := NoAnswer
		if err == nil {
			outcome = strconv.Itoa(a.Status)
		}
		outcomes = append(outcomes, outcome)
		a.Outcomes = outcomes
		if err == nil && !again(a) || len(outcomes) == c.Attempts {
			return a, err
		}
		select {
		case <-time.After(c.pause(len(outcomes), a)):
		case <-ctx.Done():
			return a, fmt.Errorf("%w, after %v", ctx.Err(), outcomes)
		}
	}
}

// again tells whether the same request may have another answer a little later.
func again(a Answer) bool {
	return a.Status >= 500 || a.Status == http.StatusRequestTimeout || a.Header.Get("Retry-After") != ""
}

// pause is how long to wait after a request was sent a number of times.
func (c *Client) pause(sent int, a Answer) time.Duration {
	first := c.Pause
	if first == 0 {
		first = 250 * time.Millisecond
	}
	// Many clients that failed together must not come back together.
	pause := first << min(sent-1, 5)
	pause -= rand.N(pause/2 + 1) //nolint:gosec // no secret
	if seconds, err := strconv.Atoi(a.Header.Get("Retry-After")); err == nil {
		pause = max(pause, time.Duration(seconds)*time.Second)
	}
	return pause
}

// send sends a request once. It is signed each time: a signature is good once, and not for long.
func (c *Client) send(ctx context.Context, r Request) (Answer, error) {
	// A body that net/http cannot rewind keeps it from sending the request again by itself when a kept connection
	// breaks, which it does with every GET and every request that has a key: with a signature that may be used up.
	req, err := http.NewRequestWithContext(ctx, r.Method, c.URL+BasePath+r.Path, io.NopCloser(bytes.NewReader(r.Body)))
	if err != nil {
		return Answer{}, fmt.Errorf("request: %w", err)
	}
	req.ContentLength = int64(len(r.Body))
	now := time.Now()
	timestamp := fmt.Sprintf("%d.%09d", now.Unix(), now.Nanosecond())
	req.Header.Set("Authorization", "Bearer "+c.Bearer)
	req.Header.Set("X-Timestamp", timestamp)
	req.Header.Set("X-Signature", integration.Sign(c.HMAC, timestamp, r.Method, req.URL.RequestURI(), r.Body))
	if r.Body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.Key != "" {
		req.Header.Set("Idempotency-Key", r.Key)
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return Answer{}, fmt.Errorf("send: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		// The status came and the rest did not: whoever needs the body has no answer.
		return Answer{}, fmt.Errorf("read answer: %w", err)
	}
	return Answer{Status: resp.StatusCode, Header: resp.Header, Body: body}, nil
}
