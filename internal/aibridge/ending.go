package aibridge

import (
	"errors"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// Causes that FreeSWITCH gives under SIP (mod_sofia.c, sofia_on_hangup; switch_types.h) when it has taken the caller
// elsewhere: another telephone has the call, or it was transferred.
const (
	causeElsewhere        = 200
	causeBlindTransfer    = 800
	causeAttendedTransfer = 801
)

// switchEnded says what a BYE of the switch means. A switch whose leg has failed, for want of media for one, ends it
// with a BYE as well, and the caller goes to a person. It repeats the Reason of the caller's own BYE, if that had one:
// a caller whose carrier lost him did not hang up either.
func switchEnded(bye *sip.Request) *fault {
	reasons := readReasons(bye)
	if len(reasons) == 0 {
		return &fault{outcome: outcomeCaller}
	}
	if cause, ok := reasons["q.850"]; ok {
		if cause == causeNormal || cause == causeUnspecified || cause == 0 {
			return &fault{outcome: outcomeCaller}
		}
		return unavailable(outcomeSwitch, errors.New("Q.850 cause "+strconv.Itoa(cause)))
	}
	cause := reasons["sip"]
	switch cause {
	case 0: // none, or of another protocol: the caller's own words
		return &fault{outcome: outcomeCaller}
	case causeElsewhere, causeBlindTransfer, causeAttendedTransfer:
		return &fault{outcome: outcomeTransferred}
	}
	return unavailable(outcomeSwitch, errors.New("SIP cause "+strconv.Itoa(cause)))
}

// readReasons returns the causes of a request by protocol, in lower case (RFC 3326). One that cannot be read is zero.
func readReasons(req *sip.Request) map[string]int {
	causes := map[string]int{}
	for _, h := range req.GetHeaders("Reason") {
		for value := range splitQuoted(h.Value(), ',') {
			protocol, cause := "", 0
			for part := range splitQuoted(value, ';') {
				name, number, isParameter := strings.Cut(part, "=")
				switch {
				case protocol == "":
					protocol = strings.ToLower(strings.TrimSpace(part))
				case isParameter && strings.EqualFold(strings.TrimSpace(name), "cause"):
					cause, _ = strconv.Atoi(strings.TrimSpace(number)) // no number is no cause
				}
			}
			causes[protocol] = cause
		}
	}
	return causes
}

// splitQuoted splits a text where a character stands outside of quotes.
func splitQuoted(s string, at byte) func(func(string) bool) {
	return func(yield func(string) bool) {
		quoted, from := false, 0
		for i := range len(s) {
			switch {
			case s[i] == '\\' && quoted:
			case s[i] == '"' && (i == 0 || s[i-1] != '\\'):
				quoted = !quoted
			case s[i] == at && !quoted:
				if !yield(s[from:i]) {
					return
				}
				from = i + 1
			}
		}
		yield(s[from:])
	}
}
