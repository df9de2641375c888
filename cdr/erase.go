package cdr

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/numbering"
)

// Erased stands where a person's number was.
const Erased = "erased"

// Person is a number that is to be erased, in each form in which phones and carriers write it. Its zero value matches
// every number.
type Person struct {
	// full are the digits of the international form, national those behind the country's code.
	full, national string
}

// shortest is the least that national digits must be to be told from an extension or a service without the country's
// code.
const shortest = 6

// NewPerson returns the person of a number.
func NewPerson(number fstext.E164) Person {
	return Person{strings.TrimPrefix(number.String(), "+"), numbering.National(number)}
}

// Pattern is a regular expression, of PostgreSQL and of Go, that finds the number in a text from which CloseUp has
// taken what is written between digits: whole, and not as a part of longer digits such as a time or an id.
func (p Person) Pattern() string {
	forms := "(00)?" + p.full
	if len(p.national) >= shortest {
		forms += "|0?" + p.national
	}
	return "(^|[^0-9])(" + forms + ")($|[^0-9])"
}

// Finder returns a function that tells whether the number stands anywhere in a text, with or without what is written
// between its digits. Making it takes longer than calling it. It is safe for concurrent use.
func (p Person) Finder() func(text string) bool {
	pattern := regexp.MustCompile(p.Pattern()) // of digits only
	return func(text string) bool {
		text = between.Replace(text)
		// Most texts have no such digits, and looking for them costs a hundredth of the pattern.
		return (strings.Contains(text, p.full) || len(p.national) >= shortest && strings.Contains(text, p.national)) && pattern.MatchString(text)
	}
}

var between = strings.NewReplacer("%20", "", "%2B", "+", "%2b", "+", " ", "", "(", "", ")", "", ".", "", "/", "", "-", "")

// has tells whether a text is the person's number: in international form the whole of it, without one the national
// digits, before which a carrier or a dialling prefix may have put a few more.
func (p Person) has(text string) bool {
	switch d := digits(text); {
	case text == "" || text == Erased:
		return false
	case p == Person{}:
		return true
	case strings.HasPrefix(text, "+"):
		return d == p.full
	case len(d) >= len(p.full):
		return strings.HasSuffix(d, p.full) || len(p.national) >= shortest && len(d) <= len(p.national)+1 && strings.HasSuffix(d, p.national)
	default:
		return len(p.national) >= shortest && len(d) <= len(p.national)+1 && strings.HasSuffix(d, p.national)
	}
}

// Concerns tells whether the number is that of somebody who took part in the call of these legs: then its recording is
// the person's too.
func (p Person) Concerns(legs []Document) bool {
	for _, d := range legs {
		r, err := d.record()
		if err != nil {
			continue
		}
		l := d.leg
		numbers := []string{l.From, l.To, l.Called, l.Transferred}
		for _, f := range r.Callflow {
			numbers = append(numbers, f.From, f.To)
		}
		if slices.ContainsFunc(numbers, p.has) {
			return true
		}
	}
	return false
}

func digits(text string) string {
	return strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return -1
		}
		return r
	}, text)
}

// lasting are the variables that an erased document keeps: what records are made of, and no text of a person or his
// phone.
var lasting = []string{
	"uuid", "direction", "originating_leg_uuid", directory.VarTenantID, directory.VarCallerID, directory.VarCalleeID, directory.VarExtensionID,
	directory.VarTrunkID, directory.VarDirection, directory.VarRoute, directory.VarReason, directory.VarRecording, "sofia_profile_name", "hangup_cause", "refer_uuid",
	"last_bridge_hangup_cause", "sip_hangup_disposition", "sip_term_status", "sip_invite_failure_status", "start_uepoch", "answer_uepoch",
	"end_uepoch",
}

// numberVariables are those that hold one, and are kept if it is another person's.
var numberVariables = []string{directory.VarDID, "dialed_user", directory.VarLegUser}

// Erase returns the document without a person's number. All text that somebody may have written goes with it, names
// too; what is left makes the same record but for the numbers. The path of the recording stays, of ids and a date, by
// which its file is removed. It is the same if done again.
func (d Document) Erase(p Person) (Document, error) {
	r, err := d.record()
	if err != nil {
		return Document{}, err
	}
	variables := map[string]any{}
	for _, name := range lasting {
		if v, ok := r.Variables[name]; ok {
			variables[name] = v
		}
	}
	for _, name := range numberVariables {
		if v := r.text(name); v != "" {
			variables[name] = strings.ReplaceAll(p.erase(v), "%", "%25")
		}
	}
	if _, joined := r.joined(); joined != uuid.Nil {
		variables["transfer_source"] = r.text("transfer_source")
		variables["last_sent_callee_id_number"] = p.erase(r.joinedTo())
	}
	if to := r.text("transfer_to"); strings.HasPrefix(to, "att:") && parseID(to[len("att:"):]) != uuid.Nil {
		variables["transfer_to"] = to
	}
	flow := make([]any, len(r.Callflow))
	for i, f := range r.Callflow {
		flow[i] = map[string]any{
			"caller_profile": map[string]any{"caller_id_number": p.erase(f.From), "destination_number": p.erase(f.To)},
			"times": map[string]any{
				"created_time": f.Created, "profile_created_time": f.Profile, "answered_time": f.Answered, "hangup_time": f.HungUp,
			},
		}
	}
	return parse(map[string]any{
		"edgvoip_reconstructed": r.Reconstructed, "edgvoip_erased": true,
		"channel_data": map[string]any{"direction": r.direction()}, "variables": variables, "callflow": flow,
	})
}

// Assign returns the document as one of a tenant.
func (d Document) Assign(tenant uuid.UUID) (Document, error) {
	var all map[string]any
	if err := json.Unmarshal(d.json, &all); err != nil {
		return Document{}, errJSON
	}
	vars, ok := all["variables"].(map[string]any)
	if !ok {
		return Document{}, errLeg
	}
	vars[directory.VarTenantID] = tenant.String()
	return parse(all)
}

// Erase returns the event without a person's number.
func (e Event) Erase(p Person) Event {
	for _, number := range []*string{&e.From, &e.To, &e.AnsweredBy, &e.TransferredTo} {
		*number = p.erase(*number)
	}
	e.RecordingURL, e.Erased = "", true
	return e
}

func (p Person) erase(number string) string {
	if p.has(number) {
		return Erased
	}
	return number
}
