package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/edgvoip/edgvoip/internal/sender"
	common "github.com/edgvoip/edgvoip/internal/settings"
	"github.com/edgvoip/edgvoip/webhook"
)

// maxWebhookTimeout bounds WEBHOOK_TIMEOUT: an attempt holds a place and a lease.
const maxWebhookTimeout = time.Minute

// checkWebhooks checks what the sender needs.
func (s settings) checkWebhooks() error {
	if s.WebhookTimeout <= 0 || s.WebhookTimeout > maxWebhookTimeout {
		return fmt.Errorf("WEBHOOK_TIMEOUT is not between 0 and %v", maxWebhookTimeout)
	}
	if s.WebhookConcurrency < 1 || s.WebhookConcurrency > 10000 {
		return errors.New("WEBHOOK_CONCURRENCY is not between 1 and 10000")
	}
	if _, err := webhook.ParseNetworks(s.WebhookAllowNetworks); err != nil {
		return fmt.Errorf("WEBHOOK_ALLOW_NETWORKS: %w", err)
	}
	return nil
}

// buildSender makes the sender of webhooks.
func (p *process) buildSender() error {
	s := p.settings
	allow, err := webhook.ParseNetworks(s.WebhookAllowNetworks)
	if err != nil {
		return fmt.Errorf("WEBHOOK_ALLOW_NETWORKS: %w", err)
	}
	roots, err := common.ReadAuthorities(s.WebhookCAFile)
	if err != nil {
		return fmt.Errorf("WEBHOOK_CA_FILE: %w", err)
	}
	p.sender = sender.New(sender.Options{
		Store: p.db, Keys: p.keys, Allow: allow, AllowHTTP: s.WebhookAllowHTTP, Timeout: s.WebhookTimeout, Shared: s.WebhookConcurrency,
		Grace: s.ShutdownTimeout, Roots: roots, Registry: p.registry, Log: p.log,
	})
	return nil
}
