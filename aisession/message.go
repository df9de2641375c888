package aisession

import (
	"encoding/json"
	"errors"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/invalid"
)

// MessageType is what a message says.
type MessageType string

// The messages. TypeAnswer and TypeHold go to the gateway, TypeTransfer and TypeError come from it, the others go both
// ways.
const (
	TypeAnswer    MessageType = "answer"
	TypeCandidate MessageType = "candidate"
	TypeHold      MessageType = "hold"
	TypeHangup    MessageType = "hangup"
	TypeTransfer  MessageType = "transfer"
	TypeError     MessageType = "error"
)

// HangupReason is why a session ends.
type HangupReason string

// The reasons. From the gateway, normal ends the call and every other sends the caller to a person.
const (
	HangupNormal      HangupReason = "normal"
	HangupFailure     HangupReason = "failure"
	HangupCancelled   HangupReason = "cancelled"   // to the gateway: the caller went before the agent was there
	HangupTransferred HangupReason = "transferred" // to the gateway: a person has the call
)

// Message is one message about a session, in either direction. Which fields are used depends on the type.
type Message struct {
	Type MessageType `json:"type"`
	// SDP is that of an answer.
	SDP string `json:"sdp,omitempty"`
	// Candidate is one that was found, or the end of them, for which its Candidate is empty.
	Candidate *Candidate `json:"candidate,omitempty"`
	// Active says of a hold whether it begins.
	Active *bool `json:"active,omitempty"`
	// Reason is that of a hangup.
	Reason HangupReason `json:"reason,omitempty"`
	// To is the extension to transfer to.
	To string `json:"to,omitempty"`
	// Code is that of an error, for logs.
	Code string `json:"code,omitempty"`
}

// Candidate is an ICE candidate as browsers write RTCIceCandidateInit.
type Candidate struct {
	Candidate        string  `json:"candidate"`
	SDPMid           *string `json:"sdpMid,omitempty"`
	SDPMLineIndex    *uint16 `json:"sdpMLineIndex,omitempty"`
	UsernameFragment *string `json:"usernameFragment,omitempty"`
}

// maxMessage bounds a message, in bytes.
const maxMessage = 64 << 10

const (
	maxCandidate = 1024
	maxCode      = 64
)

// ErrUnknownMessage means a type that is not known: a gateway that is newer than we are may send one.
var ErrUnknownMessage = errors.New("message of an unknown type")

// ParseMessage reads a message of the gateway. Errors: ErrUnknownMessage, *invalid.FieldError; neither repeats the
// message.
func ParseMessage(b []byte) (Message, error) {
	refuse := func(field, reason string) (Message, error) {
		return Message{}, &invalid.FieldError{Name: field, Reason: reason}
	}
	var m Message
	if err := decode(b, &m); err != nil {
		return refuse("message", "is not a JSON object that docs/ai-gateway.md describes")
	}
	switch m.Type {
	case TypeCandidate:
		if m.Candidate == nil || len(m.Candidate.Candidate) > maxCandidate {
			return refuse("candidate", "is not there or too long")
		}
		return Message{Type: m.Type, Candidate: m.Candidate}, nil
	case TypeHangup:
		if m.Reason != HangupNormal && m.Reason != HangupFailure {
			return refuse("reason", "is neither normal nor failure")
		}
		return Message{Type: m.Type, Reason: m.Reason}, nil
	case TypeTransfer:
		if _, err := fstext.NewExtension(m.To); err != nil {
			return Message{}, invalid.Because("to", err)
		}
		return Message{Type: m.Type, To: m.To}, nil
	case TypeError:
		if !visible(m.Code, maxCode) {
			return refuse("code", "is not 1 to 64 visible ASCII characters")
		}
		return Message{Type: m.Type, Code: m.Code}, nil
	case TypeAnswer, TypeHold:
		return refuse("type", "is one that only goes to the gateway")
	case "":
		return refuse("type", "is missing")
	}
	return Message{}, ErrUnknownMessage
}

// encode returns a message as it is sent.
func (m Message) encode() ([]byte, error) { return json.Marshal(m) }
