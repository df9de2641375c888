package directory

import "errors"

// RecordPolicy says which calls of a tenant are recorded. The zero value records none.
type RecordPolicy string

// The policies.
const (
	RecordNone     RecordPolicy = "none"
	RecordInbound  RecordPolicy = "inbound"  // calls from carriers
	RecordOutbound RecordPolicy = "outbound" // calls to carriers
	RecordExternal RecordPolicy = "external" // both of them
	RecordAll      RecordPolicy = "all"      // also those between extensions
)

// ParseRecordPolicy accepts the names above.
func ParseRecordPolicy(s string) (RecordPolicy, error) {
	switch p := RecordPolicy(s); p {
	case RecordNone, RecordInbound, RecordOutbound, RecordExternal, RecordAll:
		return p, nil
	default:
		return "", errors.New("recordCalls is one of none, inbound, outbound, external, all")
	}
}
