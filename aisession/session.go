package aisession

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/edgvoip/edgvoip/internal/invalid"
)

// SessionPath is where the gateway gives sessions, under a tenant's base URL.
const SessionPath = "/api/voip/ai-gateway/session"

// SessionRequest is the body of the request for a session.
type SessionRequest struct {
	// CallID is that of the call record, and the idempotency key.
	CallID string `json:"callId"`
	// CallerNumber is empty if the caller withheld it.
	CallerNumber string `json:"callerNumber"`
	AgentRef     string `json:"aiAgentRef"`
	TenantID     string `json:"tenantId"`
	StoreID      string `json:"storeId,omitempty"`
}

// Session is what the gateway gives for a call.
type Session struct {
	ID string
	// Offer is the gateway's SDP.
	Offer string
	// Endpoint is where messages about the session are exchanged.
	Endpoint *url.URL
	// ICEServers may be empty.
	ICEServers []ICEServer
	// Token is presented at the endpoint; empty if there is none.
	Token string
}

// String hides the token.
func (s Session) String() string { return "session " + s.ID }

// GoString hides the token from %#v.
func (s Session) GoString() string { return s.String() }

// ICEServer is a STUN or TURN server (RFC 7064, RFC 7065).
type ICEServer struct {
	URLs                 []string
	Username, Credential string
}

// Bounds on what a gateway may answer.
const (
	maxSessionID  = 128
	maxSDP        = 32 << 10
	maxToken      = 4096
	maxEndpoint   = 2048
	maxICEServers = 8
	maxICEURLs    = 16 // of all servers: each takes sockets for the length of a call
	maxAnswer     = 128 << 10
)

// sessionAnswer is the answer as it is sent. Members that are not here are ignored, so that a gateway may add some.
type sessionAnswer struct {
	SessionID string `json:"sessionId"`
	SDPOffer  string `json:"sdpOffer"`
	SDP       *struct {
		Type string `json:"type"`
		SDP  string `json:"sdp"`
	} `json:"sdp"`
	WSEndpoint string      `json:"wsEndpoint"`
	ICEServers []iceServer `json:"iceServers"`
	Token      string      `json:"token"`
	ExpiresAt  *time.Time  `json:"expiresAt"`
}

type iceServer struct {
	URLs       oneOrMore `json:"urls"`
	Username   string    `json:"username"`
	Credential string    `json:"credential"`
}

// oneOrMore reads a text or a list of texts, as browsers write RTCIceServer.urls.
type oneOrMore []string

// UnmarshalJSON implements json.Unmarshaler.
func (o *oneOrMore) UnmarshalJSON(b []byte) error {
	var one string
	if err := json.Unmarshal(b, &one); err == nil {
		*o = oneOrMore{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(o))
}

// ParseSession reads the gateway's answer. plain lets the endpoint be ws://, for development. now is to tell whether
// the session has expired. The error is a *invalid.FieldError that repeats nothing of the answer.
func ParseSession(body []byte, plain bool, now time.Time) (Session, error) {
	refuse := func(field, reason string) (Session, error) {
		return Session{}, &invalid.FieldError{Name: field, Reason: reason}
	}
	var a sessionAnswer
	if err := decode(body, &a); err != nil {
		return refuse("body", "is not the JSON object that docs/ai-gateway.md describes")
	}
	if !visible(a.SessionID, maxSessionID) {
		return refuse("sessionId", "is not 1 to 128 visible ASCII characters")
	}
	offer := a.SDPOffer
	if a.SDP != nil {
		switch {
		case offer != "":
			return refuse("sdp", "is there besides sdpOffer")
		case a.SDP.Type != "offer":
			return refuse("sdp.type", "is not offer")
		}
		offer = a.SDP.SDP
	}
	if offer == "" || len(offer) > maxSDP {
		return refuse("sdpOffer", "is not there or too long")
	}
	endpoint, err := parseEndpoint(a.WSEndpoint, plain)
	if err != nil {
		return Session{}, err
	}
	servers, err := parseICEServers(a.ICEServers)
	if err != nil {
		return Session{}, err
	}
	if a.Token != "" && !visible(a.Token, maxToken) {
		return refuse("token", "is not 1 to 4096 visible ASCII characters")
	}
	if a.ExpiresAt != nil && !now.Before(*a.ExpiresAt) {
		return refuse("expiresAt", "is over")
	}
	return Session{ID: a.SessionID, Offer: offer, Endpoint: endpoint, ICEServers: servers, Token: a.Token}, nil
}

func parseEndpoint(s string, plain bool) (*url.URL, error) {
	refuse := func(reason string) (*url.URL, error) {
		return nil, &invalid.FieldError{Name: "wsEndpoint", Reason: reason}
	}
	if len(s) > maxEndpoint {
		return refuse("is too long")
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return refuse("is not a URL of the form wss://host/path")
	case u.Scheme != "wss" && (u.Scheme != "ws" || !plain):
		return refuse("does not begin with wss://")
	case u.User != nil:
		return refuse("holds a user or a password")
	case strings.Contains(s, "#"):
		return refuse("holds a fragment")
	}
	return u, nil
}

func parseICEServers(list []iceServer) ([]ICEServer, error) {
	refuse := func(reason string) ([]ICEServer, error) {
		return nil, &invalid.FieldError{Name: "iceServers", Reason: reason}
	}
	if len(list) > maxICEServers {
		return refuse("are more than 8")
	}
	var servers []ICEServer
	urls := 0
	for _, s := range list {
		if urls += len(s.URLs); len(s.URLs) == 0 || urls > maxICEURLs {
			return refuse("has one without urls, or more than 16 of them together")
		}
		for _, u := range s.URLs {
			if reason := checkICEURL(u, s.Username != "" && s.Credential != ""); reason != "" {
				return refuse(reason)
			}
		}
		servers = append(servers, ICEServer{URLs: s.URLs, Username: s.Username, Credential: s.Credential})
	}
	return servers, nil
}

// checkICEURL says what is wrong with the URL of a STUN or TURN server; empty if nothing is. credentials tells whether
// the server was given with a username and a credential, without which no relay is had.
func checkICEURL(u string, credentials bool) (reason string) {
	scheme, rest, _ := strings.Cut(u, ":")
	host, query, hasQuery := strings.Cut(rest, "?")
	switch {
	case scheme != "stun" && scheme != "stuns" && scheme != "turn" && scheme != "turns":
		return "has a url that does not begin with stun:, stuns:, turn: or turns:"
	case host == "" || !visible(rest, maxEndpoint):
		return "has a url without a host"
	case (scheme == "stun" || scheme == "stuns") && hasQuery:
		return "has a stun: url with a question mark"
	case hasQuery && query != "transport=udp" && query != "transport=tcp":
		return "has a turn: url that goes on with something else than ?transport=udp or ?transport=tcp"
	case (scheme == "turn" || scheme == "turns") && !credentials:
		return "has a turn: url without username and credential"
	}
	return ""
}

var errTrailing = errors.New("something behind the JSON value")

// decode reads one JSON value and nothing behind it.
func decode(body []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	if err := d.Decode(to); err != nil {
		return err
	}
	if d.More() {
		return errTrailing
	}
	return nil
}

// visible tells whether s is one to so many visible ASCII characters: text that can stand in a header or a log line.
func visible(s string, most int) bool {
	if s == "" || len(s) > most {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
