package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/edgvoip/edgvoip/test/w3client"
)

// options say where edgvoip is and how it is asked.
type options struct {
	url      string
	http     *http.Client
	clients  int
	attempts int
}

// provision provisions all tenants' extensions, and returns what became of them.
func provision(ctx context.Context, tenants []tenant, o options) *report {
	r := newReport()
	var group errgroup.Group
	group.SetLimit(o.clients)
	for _, t := range tenants {
		w := w3{
			client: &w3client.Client{URL: o.url, Bearer: t.Bearer, HMAC: t.HMAC, HTTP: o.http, Attempts: o.attempts}, report: r,
		}
		for _, body := range t.bodies() {
			group.Go(func() error {
				r.done(fmt.Sprint(body["extension"], "@", body["sipRealm"]), w.provision(ctx, body))
				return nil
			})
		}
	}
	_ = group.Wait() // what failed is in the report
	return r
}

// w3 speaks for one tenant.
type w3 struct {
	client *w3client.Client
	report *report
}

// provision provisions an extension and reads back what was stored.
func (w w3) provision(ctx context.Context, body map[string]any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	var made struct {
		Success    bool      `json:"success"`
		ID         uuid.UUID `json:"edgvoipExtensionId"`
		Status     string    `json:"status"`
		WSEndpoint string    `json:"wsEndpoint"`
	}
	// W3 would keep the key with the order.
	if err := w.ask(ctx, w3client.Request{Method: http.MethodPost, Path: "/extensions", Body: b, Key: uuid.NewString()}, &made); err != nil {
		return err
	}
	if !made.Success || made.ID == uuid.Nil || made.Status != "provisioned" || !strings.HasPrefix(made.WSEndpoint, "wss://") {
		return errors.New("the answer is not that of the contract")
	}
	stored := map[string]any{}
	if err := w.ask(ctx, w3client.Request{Method: http.MethodGet, Path: "/extensions/" + made.ID.String()}, &stored); err != nil {
		return err
	}
	for _, field := range []string{"sipRealm", "extension", "sipUsername", "displayName"} {
		if sent, ok := body[field]; ok && stored[field] != sent {
			return fmt.Errorf("%s is stored as %q", field, stored[field])
		}
	}
	return nil
}

// ask sends a request, counts what came back, and reads the answer.
func (w w3) ask(ctx context.Context, r w3client.Request, into any) error {
	a, err := w.client.Do(ctx, r)
	w.report.sent(r.Method, a)
	if err != nil {
		return err
	}
	if a.Status != http.StatusOK && a.Status != http.StatusCreated {
		return fmt.Errorf("%v: %s", a.Outcomes, a.Body)
	}
	if err := json.Unmarshal(a.Body, into); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}
