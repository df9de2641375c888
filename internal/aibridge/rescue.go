package aibridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"
)

// rescue is deferred. It makes of a panic, ours or of what reads an offer, the end of one call, which goes to a person:
// not that of all calls.
func rescue(ctx context.Context, log *slog.Logger, end **fault) {
	if p := recover(); p != nil {
		what := fmt.Sprintf("%T", p)
		if e, ok := p.(runtime.Error); ok { // others may hold what was said of a caller
			what = e.Error()
		}
		log.ErrorContext(ctx, "panic", "panic", what, "stack", string(debug.Stack()))
		*end = &fault{outcomeInternal, sip.StatusInternalServerError, errPanic}
	}
}

var errPanic = errors.New("panic, see the log line before")

// rescued answers a request whose handler panics.
func (b *Bridge) rescued(ctx context.Context, handle sipgo.RequestHandler) sipgo.RequestHandler {
	return func(req *sip.Request, tx sip.ServerTransaction) {
		var end *fault
		func() {
			defer rescue(ctx, b.log, &end)
			handle(req, tx)
		}()
		if end != nil && !req.IsAck() {
			respond(tx, sip.NewResponseFromRequest(req, end.status, statusText(end.status), nil))
		}
	}
}
