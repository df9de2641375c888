package trunk

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/invalid"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/schedule"
)

// Change is a change of a trunk as it is asked for. A nil field stays as it is; an empty text or list takes away what
// need not be there.
type Change struct {
	StoreID             *uuid.UUID // zero takes it away
	Name, Provider      *string
	Description         *string
	Host                *string
	Port                *int
	Protocol            *string
	Proxy               *string
	MaxChannels         *int
	Priority            *int
	SourceAddresses     []string
	Register            *bool
	Username            *string // an empty one takes the password away too
	Password            *string
	CallerIDPolicy      *string
	CallerIDNumber      *string
	NumberFormat        *string
	TechPrefix          *string
	Prefixes            []string
	Codecs              []string
	PingSeconds         *int
	AIAgentRef          *string
	AITimePolicy        json.RawMessage // null takes it away
	AIFailoverExtension *string
	DIDRanges           []DIDRange
	Status              *string // active or disabled
}

// change returns a trunk that is asked for as a change of every field but the status.
func (s Spec) change() Change {
	return Change{
		StoreID: &s.StoreID, Name: &s.Name, Provider: &s.Provider, Description: &s.Description, Host: &s.Host, Port: new(cmp.Or(s.Port, 5060)),
		Protocol: new(cmp.Or(s.Protocol, string(ProtocolUDP))), Proxy: &s.Proxy, MaxChannels: &s.MaxChannels, Priority: &s.Priority,
		SourceAddresses: full(s.SourceAddresses), Register: &s.Register, Username: &s.Username, Password: &s.Password,
		CallerIDPolicy: new(cmp.Or(s.CallerIDPolicy, string(CallerIDTrunk))), CallerIDNumber: &s.CallerIDNumber,
		NumberFormat: new(cmp.Or(s.NumberFormat, string(NumberPlus))), TechPrefix: &s.TechPrefix, Prefixes: full(s.Prefixes),
		Codecs: full(s.Codecs), PingSeconds: &s.PingSeconds, AIAgentRef: &s.AIAgentRef, AITimePolicy: append(json.RawMessage{}, s.AITimePolicy...),
		AIFailoverExtension: &s.AIFailoverExtension, DIDRanges: full(s.DIDRanges),
	}
}

// full returns a list that is not nil.
func full[T any](list []T) []T { return append([]T{}, list...) }

// apply returns the trunk as it is after the change. Errors: *invalid.FieldError, those of home.
func (c Change) apply(r Record, home Home, keys *secret.KeyRing) (Record, error) {
	before := r
	if c.StoreID != nil {
		r.StoreID = *c.StoreID
	}
	if c.Register != nil {
		r.Register = *c.Register
	}
	err := errors.Join(
		parsed("name", &r.Name, c.Name, fstext.NewDisplayName),
		parsed("provider", &r.Provider, c.Provider, ParseProvider),
		parsed("description", &r.Description, c.Description, ParseDescription),
		parsed("host", &r.Host, c.Host, fstext.NewHost),
		between("port", &r.Port, c.Port, 1, 65535),
		parsed("protocol", &r.Protocol, c.Protocol, ParseProtocol),
		parsed("proxy", &r.Proxy, c.Proxy, ParseProxy),
		between("maxChannels", &r.MaxChannels, c.MaxChannels, 0, 100000),
		between("priority", &r.Priority, c.Priority, 0, 1000000),
		listed("sourceAddresses", &r.Sources, c.SourceAddresses, parseSources),
		parsed("callerIdPolicy", &r.CallerID, c.CallerIDPolicy, ParseCallerIDPolicy),
		parsed("callerIdNumber", &r.CallerIDNumber, c.CallerIDNumber, orNothing(fstext.NewE164)),
		parsed("numberFormat", &r.NumberFormat, c.NumberFormat, ParseNumberFormat),
		parsed("techPrefix", &r.TechPrefix, c.TechPrefix, ParseTechPrefix),
		listed("prefixes", &r.Prefixes, c.Prefixes, ParsePrefixes),
		listed("codecs", &r.Codecs, c.Codecs, parseCodecs),
		parsed("pingSeconds", &r.PingSeconds, c.PingSeconds, checkPing),
		parsed("aiAgentRef", &r.AIAgentRef, c.AIAgentRef, ParseAIAgentRef),
		listed("aiTimePolicy", &r.AITimePolicy, c.AITimePolicy, ParseAITimePolicy),
		parsed("aiFailoverExtension", &r.Failover, c.AIFailoverExtension, orNothing(fstext.NewExtension)),
		listed("didRanges", &r.Ranges, c.DIDRanges, func(list []DIDRange) ([]Range, error) { return parseRanges(home.Country, list) }),
		parsed("status", &r.Status, c.Status, parseStatus),
		c.applyCredentials(&r, keys),
	)
	if err := errors.Join(err, c.checkAgent(r, home)); err != nil {
		return r, err
	}
	return r, checkFailover(before, r, home)
}

// checkAgent refuses hours that cannot be read, and an agent without whom to call when it cannot take a call.
func (c Change) checkAgent(r Record, home Home) error {
	if c.AITimePolicy != nil && r.AITimePolicy != nil {
		if _, err := schedule.Parse(r.AITimePolicy, home.Timezone); err != nil {
			return err
		}
	}
	if r.AIAgentRef != "" && r.Failover == (fstext.Extension{}) {
		return &invalid.FieldError{Name: "aiFailoverExtension", Reason: "is needed with aiAgentRef: it takes the call when the agent cannot"}
	}
	return nil
}

// checkFailover refuses an extension that does not ring. Only who names one, or names an agent for whom it is to stand
// in, has to mend that: a trunk whose extension was deleted since can be changed in all else.
func checkFailover(before, r Record, home Home) error {
	none, named := fstext.Extension{}, r.Failover != before.Failover || r.AIAgentRef != "" && r.AIAgentRef != before.AIAgentRef
	if !named || r.Failover == none {
		return nil
	}
	rings, err := home.Rings(r.Failover)
	if err == nil && !rings {
		return &invalid.FieldError{Name: "aiFailoverExtension", Reason: "is not an active extension of the trunk's tenant"}
	}
	return err
}

// applyCredentials seals a new password. One that is there already stays sealed as it is, byte for byte: to the switch
// a password that is sealed anew is another one, and it would register again.
func (c Change) applyCredentials(r *Record, keys *secret.KeyRing) error {
	if err := parsed("username", &r.Username, c.Username, orNothing(fstext.NewCredential)); err != nil {
		return err
	}
	var password fstext.Credential
	if err := parsed("password", &password, c.Password, orNothing(fstext.NewCredential)); err != nil {
		return err
	}
	known := r.Username != (fstext.Credential{})
	switch owner := PasswordOwner(r.TenantID, r.ID); {
	case c.Password != nil && password != (fstext.Credential{}):
		plain := password.Reveal().String()
		if stored, err := keys.Open(r.Password, owner); err != nil || string(stored) != plain {
			r.Password = keys.Seal([]byte(plain), owner)
		}
	case c.Password != nil || !known:
		r.Password = secret.Sealed{}
	}
	switch {
	case known != r.PasswordSet():
		return &invalid.FieldError{Name: "password", Reason: "username and password go together"}
	case r.Register && !known:
		return &invalid.FieldError{Name: "register", Reason: "needs username and password"}
	}
	return nil
}

// parsed reads a field that is given.
func parsed[V, T any](name string, field *T, value *V, parse func(V) (T, error)) error {
	if value == nil {
		return nil
	}
	v, err := parse(*value)
	if err != nil {
		return invalid.Because(name, err)
	}
	*field = v
	return nil
}

// listed reads a list that is given.
func listed[L ~[]V, V, T any](name string, field *T, list L, parse func(L) (T, error)) error {
	if list == nil {
		return nil
	}
	return parsed(name, field, &list, parse)
}

// between reads a number that is given.
func between(name string, field, value *int, least, most int) error {
	return parsed(name, field, value, func(n int) (int, error) {
		if n < least || n > most {
			return 0, fmt.Errorf("is not between %d and %d", least, most)
		}
		return n, nil
	})
}

// orNothing makes a constructor that takes an empty text as nothing.
func orNothing[T any](parse func(string) (T, error)) func(string) (T, error) {
	return func(s string) (v T, err error) {
		if s == "" {
			return v, nil
		}
		return parse(s)
	}
}

func checkPing(seconds int) (int, error) {
	if seconds != 0 && (seconds < 5 || seconds > 3600) {
		return 0, errors.New("is neither 0 nor between 5 and 3600")
	}
	return seconds, nil
}

func parseStatus(s string) (Status, error) {
	if v := Status(s); v == StatusActive || v == StatusDisabled {
		return v, nil
	}
	return "", errors.New("is neither active nor disabled")
}
