package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/invalid"
)

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

// eraseOnce erases a person's number, from a place on. Erasing is many transactions of its own, each of which may be
// done again: it goes on while the key is held, so that of two requests at once the second waits; if it breaks off, the
// key is as if it had not been used.
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
	return write(ctx, a, key, func() (func(directory.Writer) (Erased, int, directory.Effect, error), error) {
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
