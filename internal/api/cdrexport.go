package api

import (
	"bytes"
	"context"
	"encoding/csv"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humafiber"
	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/internal/fstext"
)

// exportPage is how many records are read at a time, exportPatience how long that may take.
const (
	exportPage     = 1000
	exportPatience = 20 * time.Second
)

func (a *API) exportCDRs(ctx context.Context, in *struct{ CDRFilter }) (*huma.StreamResponse, error) {
	f, err := in.filter(exportPage)
	if err != nil {
		return nil, err
	}
	e := &export{store: a.store, tenant: infoOf(ctx).caller.TenantID, filter: f, ctx: context.WithoutCancel(ctx)}
	// The first page is read before the answer begins, so that a fault has an answer of its own.
	if _, err := inTurn(a, &a.searching, e.tenant, func() (struct{}, error) { return struct{}{}, e.first(ctx) }); err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(c huma.Context) {
		answer := humafiber.Unwrap(c)
		answer.Set(fiber.HeaderContentType, "text/csv; charset=utf-8")
		answer.Set(fiber.HeaderContentDisposition, `attachment; filename="cdrs.csv"`)
		answer.Set(fiber.HeaderXContentTypeOptions, "nosniff")
		answer.Context().SetBodyStream(patient(answer, e), -1)
	}}, nil
}

// export is a list of call records as CSV, read as it is sent. A fault on the way breaks it off.
type export struct {
	store  CallStore
	tenant uuid.UUID
	filter cdr.Filter
	ctx    context.Context //nolint:containedctx // it is read after the request's handler has returned
	buffer bytes.Buffer
	last   bool
}

var exportColumns = []string{
	"callId", "direction", "from", "to", "startTime", "answerTime", "endTime", "duration", "billsec", "disposition", "hangupCause", "storeId",
	"trunkId", "answeredBy", "transferredTo", "recordingUrl", "reconstructed",
}

func (e *export) first(ctx context.Context) error {
	w := csv.NewWriter(&e.buffer)
	w.UseCRLF = true
	if err := w.Write(exportColumns); err != nil {
		return err
	}
	w.Flush()
	return e.next(ctx)
}

// next reads a page.
func (e *export) next(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, exportPatience)
	defer cancel()
	records, err := e.store.Calls(ctx, e.tenant, e.filter)
	if err != nil {
		return err
	}
	w := csv.NewWriter(&e.buffer)
	w.UseCRLF = true
	for _, r := range records {
		if err := w.Write(csvRow(r.Event())); err != nil {
			return err
		}
	}
	w.Flush()
	if e.last = len(records) < exportPage; !e.last {
		e.filter.Before.Start, e.filter.Before.ID = records[exportPage-1].Start, records[exportPage-1].ID
	}
	return w.Error()
}

// Read implements io.Reader.
func (e *export) Read(p []byte) (int, error) {
	for e.buffer.Len() == 0 {
		if e.last {
			return 0, io.EOF
		}
		if err := e.next(e.ctx); err != nil {
			return 0, err
		}
	}
	return e.buffer.Read(p)
}

func csvRow(e cdr.Event) []string {
	at := func(t *time.Time) string {
		if t == nil {
			return ""
		}
		return t.Format(time.RFC3339Nano)
	}
	id := func(id *uuid.UUID) string {
		if id == nil {
			return ""
		}
		return id.String()
	}
	row := []string{
		e.CallID.String(), e.Direction, e.From, e.To, at(&e.StartTime), at(e.AnswerTime), at(e.EndTime), strconv.Itoa(e.Duration),
		strconv.Itoa(e.BillSec), e.Disposition, e.HangupCause, id(e.StoreID), id(e.TrunkID), e.AnsweredBy, e.TransferredTo, e.RecordingURL,
		strconv.FormatBool(e.Reconstructed),
	}
	for i := range row {
		row[i] = harmless(row[i])
	}
	return row
}

// harmless puts an apostrophe before what a spreadsheet would take for a formula. A public number begins with a plus
// sign and has nothing but digits behind it: it computes nothing, and stays as it is.
func harmless(s string) string {
	s = formula.ReplaceAllString(s, "$1'$2")
	if s == "" || isNumber(s) || !strings.ContainsAny(s[:1], "=+-@\t\r\n|%") && !strings.HasPrefix(s, "＝") &&
		!strings.HasPrefix(s, "＋") && !strings.HasPrefix(s, "－") && !strings.HasPrefix(s, "＠") {
		return s
	}
	return "'" + s
}

// formula is the beginning of one behind something that a spreadsheet may take for the end of a cell.
var formula = regexp.MustCompile(`([;,|\t\r\n][\pZ]*)([=+\-@])`)

func isNumber(s string) bool {
	_, err := fstext.NewE164(s)
	return err == nil
}

// preferCSV leads who would rather have the list of call records as CSV than as JSON to the export. It stands before
// all routes below the list's, as Fiber makes one route of two that have the same path.
func preferCSV(c *fiber.Ctx) error {
	if c.Method() == fiber.MethodGet && strings.TrimSuffix(c.Path(), "/") == BasePath+"/cdrs" &&
		c.Accepts(fiber.MIMEApplicationJSON, "text/csv") == "text/csv" {
		c.Path(BasePath + "/cdrs.csv")
	}
	return c.Next()
}
