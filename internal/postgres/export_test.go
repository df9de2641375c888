package postgres

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/webhook"
)

// InboundQuery is the query behind InboundTrunk, to be explained.
const InboundQuery = inboundQuery

// BacklogsQuery is the query behind Backlogs, to be explained.
const BacklogsQuery = backlogsQuery

// PruneBatch is how many jobs are removed at a time.
const PruneBatch = pruneBatch

// ClaimEventsQuery and ReceiversQuery are those behind ClaimEvents and DueReceivers, to be explained.
const (
	ClaimEventsQuery = claimEventsQuery
	ReceiversQuery   = receiversQuery
)

// CallsQuery is the query behind Calls, to be explained, and its arguments.
func CallsQuery(tenant uuid.UUID, f cdr.Filter) (query string, args []any) {
	return callsQuery(tenant, f)
}

// AddEvent writes an event in a transaction of its own.
func (d *DB) AddEvent(ctx context.Context, e webhook.Event) error {
	return d.inTx(ctx, func(tx *txn) error { return addEvents(ctx, tx, []webhook.Event{e}) })
}

// ReplacePendingEvent replaces the payload of an event in a transaction of its own.
func (d *DB) ReplacePendingEvent(ctx context.Context, tenant, subject uuid.UUID, kind webhook.Kind, payload []byte) (replaced bool, err error) {
	err = d.inTx(ctx, func(tx *txn) error {
		replaced, err = replacePendingEvent(ctx, tx, tenant, subject, kind, payload)
		return err
	})
	return replaced, err
}

// RefusedHistory has it that the server refused its history so long ago.
func (d *DB) RefusedHistory(ago time.Duration) {
	d.historyRefused.Store(time.Now().Add(-ago).UnixNano())
}
