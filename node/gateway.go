package node

import (
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
)

// Trunk is the task to make of a trunk what it is to be: its gateway, and the lists of carriers' addresses.
type Trunk struct {
	ID uuid.UUID
	// Revision is that of the gateway when the job was written; what the switch is to have may be newer when it is
	// done.
	Revision int64
	Gateway  GatewayChange
	// Addresses tells that the lists of carriers' addresses are to be read anew.
	Addresses bool
	// Settle marks the second round, which only reads the addresses: see SecondRound.
	Settle bool
}

// GatewayChange says what becomes of a gateway; a closed set.
type GatewayChange string

// The changes.
const (
	GatewayKeep    GatewayChange = "keep"
	GatewayReplace GatewayChange = "replace" // it is added, if it is not there
	GatewayRemove  GatewayChange = "remove"
)

// trunkPayload is the wire form of Trunk (schema.sql, tell_switches_about_trunk).
type trunkPayload struct {
	ID        uuid.UUID     `json:"trunk"`
	Revision  int64         `json:"revision"`
	Gateway   GatewayChange `json:"gateway"`
	Addresses bool          `json:"acl"`
	Settle    bool          `json:"settle,omitempty"`
}

func (j Job) trunk() (Trunk, error) {
	var p trunkPayload
	if err := json.Unmarshal(j.Payload, &p); err != nil {
		return Trunk{}, unreadable(err)
	}
	switch p.Gateway {
	case GatewayKeep, GatewayReplace, GatewayRemove:
	default:
		return Trunk{}, fmt.Errorf("%w: gateway is one of keep, replace, remove", ErrPayload)
	}
	if p.ID == uuid.Nil {
		return Trunk{}, fmt.Errorf("%w: no trunk", ErrPayload)
	}
	return Trunk(p), nil
}

// Gateway is a trunk's gateway as every switch is to have it.
type Gateway struct {
	Trunk uuid.UUID
	// Revision counts from 1; 0 means that there is to be none.
	Revision int64
}

// GatewayState is what is known of a trunk's gateway on one switch.
type GatewayState struct {
	Trunk uuid.UUID
	// Applied is the revision that the switch works with, 0 if it has no such gateway; nil if this is not known anew.
	Applied *int64
	// Registration and Ping are in the switch's own words: REGED, NOREG, FAIL_WAIT…; UP, DOWN.
	Registration, Ping string
	// Error is why it does not register or was not applied. Empty leaves what was known, unless the registration is
	// well.
	Error string
}
