package webhook

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/trunk"
)

// TrunkState is a trunk as W3 sees it: in events, and where W3 reads trunks. What we log in with at the carrier is not
// part of it.
type TrunkState struct {
	ID                  uuid.UUID       `json:"edgvoipTrunkId" format:"uuid"`
	TenantID            uuid.UUID       `json:"tenantId" format:"uuid"`
	StoreID             *uuid.UUID      `json:"storeId,omitempty" format:"uuid" doc:"Not there if the trunk belongs to no store."`
	Name                string          `json:"name"`
	Provider            string          `json:"provider"`
	Host                string          `json:"host"`
	Port                int             `json:"port"`
	Protocol            string          `json:"protocol" enum:"udp,tcp,tls"`
	MaxChannels         int             `json:"maxChannels" doc:"Calls at the same time, both directions together; 0 means no limit."`
	Status              string          `json:"status" enum:"active,disabled,deleted"`
	DIDRanges           []DIDRange      `json:"didRanges" doc:"In order of number."`
	AIAgentRef          string          `json:"aiAgentRef,omitempty"`
	AITimePolicy        json.RawMessage `json:"aiTimePolicy,omitempty" doc:"When the agent answers. Its times are in its own timezone, and if it has none in that of the trunk."`
	AIFailoverExtension string          `json:"aiFailoverExtension,omitempty"`
	Timezone            string          `json:"timezone" doc:"The tenant's, IANA." example:"Europe/Rome"`
	CreatedAt           time.Time       `json:"createdAt"`
	UpdatedAt           time.Time       `json:"updatedAt" doc:"Later after each change than after the one before: what has an earlier one is out of date."`
}

// DIDRange is a range of numbers of one length, both ends in it.
type DIDRange struct {
	First string `json:"first" doc:"E.164." example:"+390612345600"`
	Last  string `json:"last" doc:"E.164; the same as first for a single number." example:"+390612345699"`
}

// TrunkEvent is the body of an event about a trunk: what it is after the change.
type TrunkEvent struct {
	Event      Kind      `json:"event" enum:"trunk.created,trunk.updated,trunk.deleted"`
	OccurredAt time.Time `json:"occurredAt"`
	TrunkState
}

// NewTrunkState returns a stored trunk as W3 sees it.
func NewTrunkState(r trunk.Record) TrunkState {
	s := TrunkState{
		ID: r.ID, TenantID: r.TenantID, Name: r.Name.String(), Provider: r.Provider.String(), Host: r.Host.String(), Port: r.Port,
		Protocol: string(r.Protocol), MaxChannels: r.MaxChannels, Status: string(r.Status), DIDRanges: make([]DIDRange, len(r.Ranges)),
		AIAgentRef: r.AIAgentRef, AITimePolicy: r.AITimePolicy, AIFailoverExtension: r.Failover.String(), Timezone: r.Timezone,
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(),
	}
	if r.StoreID != uuid.Nil {
		s.StoreID = &r.StoreID
	}
	for i, d := range r.Ranges {
		s.DIDRanges[i] = DIDRange{d.First.String(), d.Last.String()}
	}
	return s
}

// NewTrunkEvent returns the event of a change, from the trunk as it is stored after it.
func NewTrunkEvent(kind Kind, r trunk.Record) (Event, error) {
	payload, err := json.Marshal(TrunkEvent{Event: kind, OccurredAt: r.UpdatedAt.UTC(), TrunkState: NewTrunkState(r)})
	if err != nil {
		return Event{}, fmt.Errorf("event of trunk %s: %w", r.ID, err)
	}
	return Event{TenantID: r.TenantID, Key: uuid.New(), Kind: kind, Subject: r.ID, Payload: payload}, nil
}
