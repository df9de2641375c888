package esl

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Bounds on what a switch may send. The largest honest frame is a list of all registrations: some 800 bytes a phone.
const (
	maxFrameHeader = 64 << 10
	maxFrameBody   = 64 << 20
)

// errFrame is what every error about bytes that are no frame wraps.
var errFrame = errors.New("not a frame of the event socket")

func badFrame(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errFrame}, args...)...)
}

// frame is one message of the event socket: lines of headers, a blank line, and as many bytes as Content-Length says.
// Headers of a frame other than these three are not kept.
type frame struct {
	contentType string
	replyText   string
	body        []byte
}

// readFrame reads a frame. At the end of the stream it returns io.EOF before a frame and io.ErrUnexpectedEOF within
// one; any other error than those and that of the stream wraps errFrame.
func readFrame(r *bufio.Reader) (frame, error) {
	var f frame
	length, err := f.readHeader(r)
	if err != nil || length == 0 {
		return f, err
	}
	// The buffer grows with what arrives, so that a length which is only claimed costs nothing.
	var body bytes.Buffer
	if _, err := io.CopyN(&body, r, int64(length)); err != nil {
		return frame{}, unexpected(err)
	}
	f.body = body.Bytes()
	return f, nil
}

// readHeader reads the lines up to and with the blank one and returns the length of the body.
func (f *frame) readHeader(r *bufio.Reader) (length int, err error) {
	length = -1
	for size, begun := 0, false; ; {
		line, err := r.ReadSlice('\n')
		if size += len(line); size > maxFrameHeader || errors.Is(err, bufio.ErrBufferFull) {
			return 0, badFrame("its header is longer than %d bytes", maxFrameHeader)
		}
		if err != nil {
			if begun || len(line) > 0 {
				err = unexpected(err)
			}
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			// FreeSWITCH ends some replies with a line break too many, which then stands before the next frame.
			if !begun {
				continue
			}
			break
		}
		begun = true
		if length, err = f.addHeader(line, length); err != nil {
			return 0, err
		}
	}
	if f.contentType == "" {
		return 0, badFrame("it has no Content-Type")
	}
	return max(length, 0), nil
}

// addHeader takes one line. length is that of the body as far as it is known, else negative; it returns what is known
// afterwards.
func (f *frame) addHeader(line []byte, length int) (int, error) {
	name, value, found := strings.Cut(string(line), ":")
	if !found {
		return 0, badFrame("a line of its header has no colon")
	}
	value = strings.TrimSpace(value)
	switch strings.ToLower(name) {
	case "content-type":
		f.contentType = value
	case "reply-text":
		f.replyText = value
	case "content-length":
		if length >= 0 {
			return 0, badFrame("it has two lengths")
		}
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || n > maxFrameBody {
			return 0, badFrame("its length is not a number up to %d", maxFrameBody)
		}
		return int(n), nil
	}
	return length, nil
}

// unexpected makes the end of the stream an error of its own kind, as it came within a frame.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// bytes returns the frame as it travels.
func (f frame) bytes() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Content-Type: %s\n", f.contentType)
	if f.replyText != "" {
		fmt.Fprintf(&b, "Reply-Text: %s\n", f.replyText)
	}
	if len(f.body) > 0 {
		fmt.Fprintf(&b, "Content-Length: %d\n", len(f.body))
	}
	b.WriteByte('\n')
	b.Write(f.body)
	return b.Bytes()
}
