package api

import (
	"context"
	"crypto/hmac"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"
	"github.com/valyala/fasthttp"

	"github.com/edgvoip/edgvoip/cdr"
)

// RecordingFiles is where recordings are. Implementations are safe for concurrent use.
type RecordingFiles interface {
	// Open opens a recording by its path in the directory of recordings. Error: cdr.ErrNotReady.
	Open(path string) (*os.File, fs.FileInfo, error)
}

// RecordingURL returns where the recording of a call can be asked for, by whoever may.
func RecordingURL(publicURL string, call uuid.UUID) string {
	return publicURL + BasePath + "/cdrs/" + call.String() + "/recording"
}

// linkLifetime is how long a link to a recording is good.
const linkLifetime = 5 * time.Minute

const recordingsPath = "/recordings"

// Link is the answer to GET /cdrs/{callId}/recording.
type Link struct {
	URL       string    `json:"url" doc:"Answers the recording, also in parts (Range)."`
	ExpiresAt time.Time `json:"expiresAt"`
}

func (a *API) getRecording(ctx context.Context, in *ByCall) (*body[Link], error) {
	r, err := a.store.Call(ctx, infoOf(ctx).caller.TenantID, in.CallID)
	if err == nil && r.AbsorbedBy != uuid.Nil && r.RecordingState == cdr.RecordingNone {
		// W3 may have been told of this recording under the name that the call had then.
		r, err = a.store.Call(ctx, r.TenantID, r.AbsorbedBy)
	}
	if err != nil {
		return nil, err
	}
	if r.RecordingState != cdr.RecordingReady || a.recordings == nil {
		return nil, cdr.ErrNotReady
	}
	expires := a.now().Add(linkLifetime).Truncate(time.Second).UTC()
	text := strconv.FormatInt(expires.Unix(), 10)
	signature := a.keys.Digests(linkMessage(r.TenantID.String(), r.ID.String(), text))[0]
	return &body[Link]{Link{
		URL:       a.publicURL + recordingsPath + "/" + r.TenantID.String() + "/" + r.ID.String() + "/" + text + "/" + hex.EncodeToString(signature),
		ExpiresAt: expires,
	}}, nil
}

// linkMessage is what the signature of a link is over. No part of it can hold the separator and be taken.
func linkMessage(tenant, call, expires string) []byte {
	return []byte("edgvoip recording link|" + tenant + "|" + call + "|" + expires)
}

// registerRecordings serves recordings to whoever has a link.
func (a *API) registerRecordings(app *fiber.App) {
	app.Get(recordingsPath+"/:tenant/:call/:expires/:signature", a.observe, a.limitAddress, a.sendRecording)
	app.Use(recordingsPath, a.observe, a.limitAddress, a.badLink)
}

// badLink answers a link that is not good, whatever is wrong with it.
func (a *API) badLink(c *fiber.Ctx) error {
	a.addresses.charge(peer(c), failureCost)
	return refuse(c, newProblem(codeBadLink), "")
}

// signed returns what a link is to, if it is good.
func (a *API) signed(c *fiber.Ctx) (tenant, call uuid.UUID, ok bool) {
	given, err := hex.DecodeString(c.Params("signature"))
	if err != nil {
		return tenant, call, false
	}
	for _, want := range a.keys.Digests(linkMessage(c.Params("tenant"), c.Params("call"), c.Params("expires"))) {
		ok = hmac.Equal(given, want) || ok
	}
	expires, err1 := strconv.ParseInt(c.Params("expires"), 10, 64)
	tenant, err2 := uuid.Parse(c.Params("tenant"))
	call, err3 := uuid.Parse(c.Params("call"))
	return tenant, call, ok && errors.Join(err1, err2, err3) == nil && a.now().Before(time.Unix(expires, 0))
}

func (a *API) sendRecording(c *fiber.Ctx) error {
	infoOf(c.UserContext()).operation = "recording"
	tenant, call, ok := a.signed(c)
	if !ok {
		return a.badLink(c)
	}
	r, err := a.store.Call(c.UserContext(), tenant, call)
	if err != nil {
		return err
	}
	if r.RecordingState != cdr.RecordingReady || a.recordings == nil {
		return cdr.ErrNotReady
	}
	file, info, err := a.recordings.Open(r.Recording)
	if err != nil {
		return err
	}
	c.Set(fiber.HeaderContentType, "audio/wav")
	c.Set(fiber.HeaderContentDisposition, `attachment; filename="`+call.String()+`.wav"`)
	c.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	c.Set(fiber.HeaderAcceptRanges, "bytes")
	return sendPart(c, file, info.Size())
}

// sendPart sends a file, or the one part of it that is asked for (RFC 9110, 14.2).
func sendPart(c *fiber.Ctx, file *os.File, size int64) error {
	first, last := 0, int(size)-1
	if asked := c.Request().Header.Peek(fiber.HeaderRange); len(asked) > 0 {
		var err error
		if first, last, err = fasthttp.ParseByteRange(asked, int(size)); err != nil {
			_ = file.Close()
			c.Set(fiber.HeaderContentRange, "bytes */"+strconv.FormatInt(size, 10))
			return c.SendStatus(http.StatusRequestedRangeNotSatisfiable)
		}
		c.Status(http.StatusPartialContent)
		c.Set(fiber.HeaderContentRange, "bytes "+strconv.Itoa(first)+"-"+strconv.Itoa(last)+"/"+strconv.FormatInt(size, 10))
	}
	length := last - first + 1
	c.Context().SetBodyStream(patient(c, part{io.NewSectionReader(file, int64(first), int64(length)), file}), length)
	return nil
}

// part is a part of a file.
type part struct {
	io.Reader
	io.Closer
}

// sendPatience is how long a client may take to accept a piece of a long answer.
const sendPatience = 30 * time.Second

// patient gives each piece of a long answer its own time, rather than all of it the server's.
func patient(c *fiber.Ctx, r io.Reader) io.Reader { return patientReader{r, c.Context().Conn()} }

type patientReader struct {
	io.Reader
	conn net.Conn
}

// Read implements io.Reader.
func (r patientReader) Read(p []byte) (int, error) {
	if err := r.conn.SetWriteDeadline(time.Now().Add(sendPatience)); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// Close implements io.Closer: the server calls it at the end.
func (r patientReader) Close() error {
	if c, ok := r.Reader.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
