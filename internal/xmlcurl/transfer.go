package xmlcurl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/fsxml"
)

// hangUpTimeout bounds a command to the switch, whose SIP profile stands still until it has our answer.
const hangUpTimeout = time.Second

// transferElsewhere answers a switch that a phone has asked to transfer a call to one that is not there: REFER with a
// Replaces that names no call (sofia.c, sofia_handle_sip_i_refer).
//
// mod_sofia takes it for a call on another switch. It puts the parameters and headers of Refer-To, as the phone wrote
// them, into braces before whatever we answer, and originates that. Our answer calls nobody; but a brace or a comma of
// the phone's makes a dial string of its own: to any address, over any gateway, with variables that run commands of the
// switch. No answer mends that. The switch does so only while the phone's channel is there, and waits for our answer;
// so a phone that writes such text is hung up on before it has it. See docs/decisions/0020.
func (h *Handler) transferElsewhere(ctx context.Context, f *form) (answer, error) {
	a := answer{outcome: string(directory.OutcomeRefused), reason: "transfer to a call that is not on this switch"}
	if f.contradicts || !harmless(f.get(fieldReferParams)) || !harmless(f.get(fieldReferHeaders)) {
		a.reason = "transfer that would command the switch; the phone was hung up on"
		if err := h.endChannel(ctx, f.get(fieldReferrer)); err != nil {
			h.log.ErrorContext(ctx, "a phone that commands the switch could not be hung up on", "channel", f.get(fieldReferrer), "error", err)
			a.reason = "transfer that commands the switch"
		}
	}
	doc := fsxml.New(fsxml.SectionChannels)
	doc.Open("params")
	doc.Param("dial-prefix", fstext.Text{}) // the switch would print (null)
	doc.Param("absolute-dial-string", fstext.Const("error/CALL_REJECTED"))
	var err error
	a.document, err = doc.Bytes()
	return a, err
}

// errNoWay is the error where xmlcurl has no event socket; such a switch lets phones transfer nothing
// (disable-transfer), once its profile was read again.
var errNoWay = errors.New("EVENT_SOCKET_PASSWORD_FILE is not set")

// harmless tells whether a text stays one value inside the braces of a dial string (switch_ivr_originate.c,
// switch_event.c: switch_event_create_brackets): Replaces with its tags, percent-encoded, does.
func harmless(s string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && strings.IndexByte("%;=&.-_~@+*!", c) < 0 {
			return false
		}
	}
	return true
}

func (h *Handler) endChannel(ctx context.Context, id string) error {
	channel, err := uuid.Parse(id)
	if err != nil {
		return fmt.Errorf("channel: %w", err)
	}
	if h.hangUp == nil {
		return errNoWay
	}
	ctx, cancel := context.WithTimeout(ctx, hangUpTimeout)
	defer cancel()
	return h.hangUp(ctx, channel)
}
