package esl

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadFrame(t *testing.T) {
	t.Parallel()
	const lines = 1 << 16
	for name, tc := range map[string]struct {
		in   string
		want frame
		err  error
	}{
		"greeting":              {in: "Content-Type: auth/request\n\n", want: frame{contentType: "auth/request"}},
		"reply":                 {in: "Content-Type: command/reply\nReply-Text: -ERR 100% wrong\n\n", want: frame{contentType: "command/reply", replyText: "-ERR 100% wrong"}},
		"body":                  {in: "Content-Type: api/response\nContent-Length: 3\n\na\nb", want: frame{contentType: "api/response", body: []byte("a\nb")}},
		"length first":          {in: "Content-Length: 1\nContent-Type: x\n\na", want: frame{contentType: "x", body: []byte("a")}},
		"CR LF":                 {in: "Content-Type: x\r\nContent-Length: 1\r\n\r\na", want: frame{contentType: "x", body: []byte("a")}},
		"other letter case":     {in: "content-type: x\ncontent-length: 1\n\na", want: frame{contentType: "x", body: []byte("a")}},
		"line break before":     {in: "\n\nContent-Type: x\n\n", want: frame{contentType: "x"}},
		"other headers":         {in: "Content-Type: x\nX(y) é: %zz\n\n", want: frame{contentType: "x"}},
		"length of nothing":     {in: "Content-Type: x\nContent-Length: 0\n\n", want: frame{contentType: "x"}},
		"end":                   {in: "", err: io.EOF},
		"end in a header":       {in: "Content-Type: x", err: io.ErrUnexpectedEOF},
		"end after a header":    {in: "Content-Type: x\n", err: io.ErrUnexpectedEOF},
		"end before a body":     {in: "Content-Type: x\nContent-Length: 3\n\n", err: io.ErrUnexpectedEOF},
		"end in a body":         {in: "Content-Type: x\nContent-Length: 3\n\nab", err: io.ErrUnexpectedEOF},
		"no type":               {in: "Content-Length: 0\n\n", err: errFrame},
		"no colon":              {in: "SSH-2.0-OpenSSH_9.2p1\r\n\r\n", err: errFrame},
		"negative length":       {in: "Content-Type: x\nContent-Length: -1\n\n", err: errFrame},
		"signed length":         {in: "Content-Type: x\nContent-Length: +1\n\na", err: errFrame},
		"length of no number":   {in: "Content-Type: x\nContent-Length: many\n\n", err: errFrame},
		"empty length":          {in: "Content-Type: x\nContent-Length:\n\n", err: errFrame},
		"length past the bound": {in: "Content-Type: x\nContent-Length: 67108865\n\n", err: errFrame},
		"length past an int":    {in: "Content-Type: x\nContent-Length: 99999999999999999999\n\n", err: errFrame},
		"two lengths":           {in: "Content-Type: x\nContent-Length: 1\nContent-Length: 1\n\na", err: errFrame},
		"endless line":          {in: "Content-Type: " + strings.Repeat("x", maxFrameHeader), err: errFrame},
		"endless lines":         {in: strings.Repeat("A: b\n", lines), err: errFrame},
		"endless line breaks":   {in: strings.Repeat("\n", lines+1), err: errFrame},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, r := range []io.Reader{strings.NewReader(tc.in), iotest.OneByteReader(strings.NewReader(tc.in))} {
				got, err := readFrame(bufio.NewReader(r))
				if !errors.Is(err, tc.err) {
					t.Fatalf("error is %v, want %v", err, tc.err)
				}
				if err == nil && !sameFrame(got, tc.want) {
					t.Errorf("read %+v, want %+v", got, tc.want)
				}
			}
		})
	}
}

// A peer that claims a large body and sends none costs no memory.
func TestReadFrameTrustsNoLength(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := readFrame(bufio.NewReader(strings.NewReader("Content-Type: x\nContent-Length: 67108864\n\nab"))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
		t.Errorf("%d bytes were allocated for two", used)
	}
}

// Law: whatever a switch sends, reading it ends without a crash and within bounds; what is read makes the same frame
// when it is passed on.
func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("Content-Type: auth/request\n\n"))
	f.Add([]byte("Content-Type: command/reply\nReply-Text: +OK accepted\n\n\nContent-Type: api/response\nContent-Length: 4\n\n+OK\n"))
	f.Add([]byte("Content-Length: 24\nContent-Type: text/event-plain\n\nEvent-Name: HEARTBEAT\n\n\n"))
	f.Add([]byte("Content-Type: x\nContent-Length: 67108864\n\n"))
	f.Add([]byte("Content-Type:\r\r\n \r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReader(bytes.NewReader(in))
		for range len(in) + 1 {
			got, err := readFrame(r)
			if err != nil {
				if !errors.Is(err, errFrame) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("unknown error %v", err)
				}
				return
			}
			if len(got.body) > len(in) {
				t.Fatalf("%d bytes of body from %d", len(got.body), len(in))
			}
			again, err := readFrame(bufio.NewReader(bytes.NewReader(got.bytes())))
			if err != nil || !sameFrame(got, again) {
				t.Fatalf("%+v is passed on as %+v, %v", got, again, err)
			}
		}
		t.Fatal("frames without end")
	})
}

func sameFrame(a, b frame) bool {
	return a.contentType == b.contentType && a.replyText == b.replyText && bytes.Equal(a.body, b.body)
}
