package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/invalid"
)

// CallStore is where call records are. Package postgres implements it.
type CallStore interface {
	// Calls returns records of a tenant, the newest first, Call one of them, Legs its legs. Error: cdr.ErrUnknownCall.
	Calls(ctx context.Context, tenant uuid.UUID, f cdr.Filter) ([]cdr.Record, error)
	Call(ctx context.Context, tenant, call uuid.UUID) (cdr.Record, error)
	Legs(ctx context.Context, tenant, call uuid.UUID) ([]cdr.Leg, error)
	// EraseNumber takes a person's number out of a tenant's records, from a place on and for about so long. It returns
	// how many they were, and where to go on unless it is done.
	EraseNumber(ctx context.Context, tenant uuid.UUID, p cdr.Person, from cdr.ErasurePlace, patience time.Duration, actor string) (calls int, next cdr.ErasurePlace, err error)
	// CallPolicy and CallPolicies return what tenants want of their records. ChangeTenant changes that, and the tenant
	// itself: both or nothing. Errors: directory.ErrUnknownTenant, *invalid.FieldError.
	CallPolicy(ctx context.Context, tenant uuid.UUID) (cdr.Policy, error)
	CallPolicies(ctx context.Context) (map[uuid.UUID]cdr.Policy, error)
	ChangeTenant(ctx context.Context, tenant uuid.UUID, c directory.TenantChange, patch cdr.PolicyPatch, actor string) (directory.TenantRecord, cdr.Policy, error)
	// KeptDocuments returns documents that wait for an operator, KeptDocument one of them, with its body. RetryDocument
	// has it read once more, DiscardDocument removes it. Error: cdr.ErrUnknownCall.
	KeptDocuments(ctx context.Context, state cdr.DocumentState, after int64, limit int) ([]cdr.KeptDocument, error)
	KeptDocument(ctx context.Context, id int64) (cdr.KeptDocument, error)
	RetryDocument(ctx context.Context, id int64, actor string) error
	DiscardDocument(ctx context.Context, id int64, actor string) error
}

// CDR is a call record: what its event told last, and what became of its recording.
type CDR struct {
	cdr.Event
	RecordingState string `json:"recordingState" enum:"none,expected,ready,lost,removed" doc:"expected: the file is not there yet. lost: it did not come in a day. removed: its time is over, or it was erased."`
}

func cdrOf(r cdr.Record) CDR { return CDR{r.Event(), string(r.RecordingState)} }

// Leg is one channel of a call.
type Leg struct {
	ID            uuid.UUID  `json:"legId" format:"uuid"`
	ParentID      *uuid.UUID `json:"parentLegId,omitempty" format:"uuid" doc:"The leg that called this one; not there for the calling leg."`
	From          string     `json:"from"`
	To            string     `json:"to"`
	StartTime     time.Time  `json:"startTime"`
	AnswerTime    *time.Time `json:"answerTime,omitempty"`
	EndTime       *time.Time `json:"endTime,omitempty"`
	HangupCause   string     `json:"hangupCause,omitempty"`
	SIPStatus     int        `json:"sipStatus,omitempty" doc:"The last SIP answer."`
	HungUp        string     `json:"hungUp,omitempty" doc:"Who ended it, and how." example:"recv_bye"`
	TrunkID       *uuid.UUID `json:"trunkId,omitempty" format:"uuid"`
	TransferredTo string     `json:"transferredTo,omitempty"`
	Reconstructed bool       `json:"reconstructed"`
}

func legOf(l cdr.Leg) Leg {
	return Leg{
		ID: l.ID, ParentID: optional(l.Parent), From: l.From, To: l.To, StartTime: l.Start, AnswerTime: stamp(l.Answer), EndTime: stamp(l.End),
		HangupCause: l.Cause, SIPStatus: l.SIPStatus, HungUp: l.HungUp, TrunkID: optional(l.TrunkID), TransferredTo: l.Transferred,
		Reconstructed: l.Reconstructed,
	}
}

// CDRWithLegs is a call record with its legs.
type CDRWithLegs struct {
	CDR
	Legs []Leg `json:"legs" doc:"In order of start."`
}

func (a *API) registerCDRs() {
	handle(a, operation("list-cdrs", http.MethodGet, "/cdrs", "List call records", "The newest first. With Accept: text/csv, the answer is that of /cdrs.csv.", 422), a.listCDRs)
	export := operation("export-cdrs", http.MethodGet, "/cdrs.csv", "Export call records",
		"All that the filters leave, the newest first, as CSV (RFC 4180). A text that a spreadsheet would take for a formula has an apostrophe before it. "+
			"An export that breaks off ends without the end of its encoding: do not use it.", 422)
	export.Responses = map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{"text/csv": {}}}}
	handle(a, export, a.exportCDRs)
	handle(a, operation("get-cdr", http.MethodGet, "/cdrs/{callId}", "Get a call record with its legs", "", 404, 422), a.getCDR)
	handle(a, operation("get-recording", http.MethodGet, "/cdrs/{callId}/recording", "Get a link to the recording of a call",
		"The link is good for five minutes, for whoever has it.", 404, 422), a.getRecording)
	handle(a, operation("erase-number", http.MethodPost, "/erasures", "Erase a person's number",
		"From call records, events and what was kept of the calls, with names and recordings. The records stay, without the number, and are told anew. The same again does no harm. "+
			"A tenant with many records needs several requests: see done and cursor.",
		413, 415, 422), a.eraseNumber)
}

// CDRFilter are the parameters that choose call records.
type CDRFilter struct {
	From        time.Time `query:"from" doc:"Calls that began then or later."`
	To          time.Time `query:"to" doc:"Calls that began before."`
	Direction   string    `query:"direction" enum:"inbound,outbound,internal"`
	Disposition string    `query:"disposition" enum:"answered,no_answer,busy,cancelled,refused,failed"`
	Number      string    `query:"number" maxLength:"64" doc:"Of the caller, or of anybody whom he called; with or without the plus sign."`
	StoreID     string    `query:"storeId" format:"uuid"`
}

func (f CDRFilter) filter(limit int) (cdr.Filter, error) {
	out := cdr.Filter{
		From: f.From, To: f.To, Direction: cdr.Direction(f.Direction), Disposition: cdr.Disposition(f.Disposition), Number: f.Number, Limit: limit,
	}
	if !f.From.IsZero() && !f.To.IsZero() && !f.From.Before(f.To) {
		return out, &invalid.FieldError{Name: "query.to", Reason: "is not after from"}
	}
	if strings.ContainsRune(f.Number, 0) {
		return out, &invalid.FieldError{Name: "query.number", Reason: "is no number"}
	}
	// huma has checked its form.
	out.StoreID, _ = uuid.Parse(f.StoreID)
	return out, nil
}

func (a *API) listCDRs(ctx context.Context, in *struct {
	Paged
	CDRFilter
},
) (*body[page[CDR]], error) {
	f, err := in.filter(in.Limit + 1)
	if err != nil {
		return nil, err
	}
	if f.Before.Start, f.Before.ID, err = parseCDRCursor(in.Cursor); err != nil {
		return nil, err
	}
	records, err := a.calls(ctx, f)
	if err != nil {
		return nil, err
	}
	list := make([]CDR, len(records))
	for i, r := range records {
		list[i] = cdrOf(r)
	}
	return &body[page[CDR]]{cut(list, in.Limit, func(c CDR) string {
		return newCDRCursor(c.StartTime, c.CallID)
	})}, nil
}

// calls reads call records. A search for a number looks in several places, so a tenant may have few of those under way.
func (a *API) calls(ctx context.Context, f cdr.Filter) ([]cdr.Record, error) {
	tenant := infoOf(ctx).caller.TenantID
	read := func() ([]cdr.Record, error) { return a.store.Calls(ctx, tenant, f) }
	if f.Number == "" {
		return read()
	}
	return inTurn(a, &a.searching, tenant, read)
}

// latestMicro is later than any record, in microseconds since 1970.
const latestMicro = 1 << 52

func newCDRCursor(start time.Time, id uuid.UUID) string {
	return newCursor(strconv.FormatInt(start.UnixMicro(), 10), id.String())
}

func parseCDRCursor(cursor string) (start time.Time, id uuid.UUID, err error) {
	if cursor == "" {
		return start, id, nil
	}
	parts, err := parseCursor(cursor, 2)
	if err != nil {
		return start, id, err
	}
	us, err1 := strconv.ParseInt(parts[0], 10, 64)
	id, err2 := uuid.Parse(parts[1])
	if err1 != nil || err2 != nil || us < 0 || us > latestMicro {
		return start, id, errCursor
	}
	return time.UnixMicro(us), id, nil
}

// ByCall are the parameters of a route about one call.
type ByCall struct {
	CallID uuid.UUID `path:"callId" format:"uuid"`
}

func (a *API) getCDR(ctx context.Context, in *ByCall) (*body[CDRWithLegs], error) {
	tenant := infoOf(ctx).caller.TenantID
	r, err := a.store.Call(ctx, tenant, in.CallID)
	if err != nil {
		return nil, err
	}
	legs, err := a.store.Legs(ctx, tenant, in.CallID)
	if err != nil {
		return nil, err
	}
	out := CDRWithLegs{CDR: cdrOf(r), Legs: make([]Leg, len(legs))}
	for i, l := range legs {
		out.Legs[i] = legOf(l)
	}
	return &body[CDRWithLegs]{out}, nil
}

// Erasure is the body of POST /erasures.
type Erasure struct {
	Number string `json:"number" doc:"E.164." example:"+393331234567"`
	Cursor string `json:"cursor,omitempty" maxLength:"512" doc:"Where to go on: the cursor of an answer that was not done."`
}

// Erased is the answer to POST /erasures.
type Erased struct {
	Calls  int    `json:"calls" doc:"How many calls this request found the number in."`
	Done   bool   `json:"done" doc:"Whether all records were gone through. If not, send the request again with cursor."`
	Cursor string `json:"cursor,omitempty"`
}

// erasePatience is how long one request goes on erasing, well within what a client waits.
const erasePatience = 3 * time.Second

func (a *API) eraseNumber(ctx context.Context, in *struct {
	Keyed
	Body Erasure
},
) (*written[Erased], error) {
	number, err := fstext.NewE164(in.Body.Number)
	if err != nil {
		return nil, invalid.Because("number", err)
	}
	from, err := parseErasureCursor(in.Body.Cursor)
	if err != nil {
		return nil, err
	}
	// Who waits for another with his key waits in his turn too: it holds a connection.
	return inTurn(a, &a.searching, infoOf(ctx).caller.TenantID, func() (*written[Erased], error) {
		return a.eraseOnce(ctx, in.Key, cdr.NewPerson(number), from)
	})
}

// eraseOnce erases a person's number, from a place on. Erasing is many transactions of its own, each of which may be done again: it
// goes on while the key is held, so that of two requests at once the second waits; if it breaks off, the key is as if it had not been used.
func (a *API) eraseOnce(ctx context.Context, key string, p cdr.Person, from cdr.ErasurePlace) (*written[Erased], error) {
	if key == "" {
		out, err := a.erase(ctx, p, from)
		return &written[Erased]{Status: http.StatusOK, Body: out}, err
	}
	return inTurn(a, &a.erasing, uuid.Nil, func() (*written[Erased], error) {
		return a.eraseUnderKey(ctx, key, p, from)
	})
}

func (a *API) eraseUnderKey(ctx context.Context, key string, p cdr.Person, from cdr.ErasurePlace) (*written[Erased], error) {
	claim := infoOf(ctx).claim(key)
	claim.Ahead = true
	return write(ctx, a, claim, func() (func(directory.Writer) (Erased, int, directory.Effect, error), error) {
		return func(directory.Writer) (Erased, int, directory.Effect, error) {
			out, err := a.erase(ctx, p, from)
			return out, http.StatusOK, directory.EffectUpdated, err
		}, nil
	})
}

func (a *API) erase(ctx context.Context, p cdr.Person, from cdr.ErasurePlace) (Erased, error) {
	caller := infoOf(ctx).caller
	n, next, err := a.store.EraseNumber(ctx, caller.TenantID, p, from, erasePatience, caller.Actor())
	if err != nil {
		return Erased{}, err
	}
	if next.Stage == cdr.EraseDone {
		return Erased{Calls: n, Done: true}, nil
	}
	return Erased{Calls: n, Cursor: newErasureCursor(next)}, nil
}

// newErasureCursor tells the stage, and the last that was looked at in it.
func newErasureCursor(p cdr.ErasurePlace) string {
	at, id := max(p.Document, p.Event), uuid.Nil
	if p.Stage == cdr.EraseLegs {
		at, id = p.Leg.Start.UnixMicro(), p.Leg.ID
		if p.Leg == (cdr.LegKey{}) {
			at = 0
		}
	}
	return newCursor(strconv.Itoa(int(p.Stage)), strconv.FormatInt(at, 10), id.String())
}

func parseErasureCursor(cursor string) (p cdr.ErasurePlace, err error) {
	if cursor == "" {
		return p, nil
	}
	wrong := &invalid.FieldError{Name: "cursor", Reason: "is no cursor of an answer to such a request"}
	parts, err := parseCursor(cursor, 3)
	if err != nil {
		return p, wrong
	}
	stage, err1 := strconv.Atoi(parts[0])
	at, err2 := strconv.ParseInt(parts[1], 10, 64)
	id, err3 := uuid.Parse(parts[2])
	if err1 != nil || err2 != nil || err3 != nil || at < 0 {
		return p, wrong
	}
	p.Stage = cdr.ErasureStage(stage)
	switch p.Stage {
	case cdr.EraseDocuments:
		p.Document = at
	case cdr.EraseLegs:
		if at > latestMicro {
			return p, wrong
		}
		if at > 0 || id != uuid.Nil {
			p.Leg = cdr.LegKey{Start: time.UnixMicro(at), ID: id}
		}
	case cdr.EraseEvents:
		p.Event = at
	default:
		return p, wrong
	}
	return p, nil
}
