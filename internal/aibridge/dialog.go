package aibridge

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"
)

// dialog is the SIP side of one call, which the switch began: what is said in it, and nothing of what it is about
// (RFC 3261, 12). Its methods are safe for concurrent use.
type dialog struct {
	client *sipgo.Client
	// contact is where we are, by the way that the INVITE took.
	contact sip.Header
	// invite has our tag in To; it is not changed.
	invite *sip.Request
	tx     sip.ServerTransaction
	id     string

	// acked is closed by the first ACK, ended by a BYE of the switch.
	acked, ended chan struct{}
	// bye is the BYE of the switch, once ended is closed.
	bye *sip.Request

	mu         sync.Mutex
	cseq       uint32 // ours, of the last request
	remoteCSeq uint32
	target     sip.Uri
	isAcked    bool
	isEnded    bool
}

// errHeaders means an INVITE without what every one has.
var errHeaders = errors.New("no From, Contact, Call-ID or CSeq")

// newDialog returns the dialog that an INVITE begins.
func newDialog(client *sipgo.Client, at netip.AddrPort, req *sip.Request, tx sip.ServerTransaction) (*dialog, error) {
	invite := req.Clone() // the transaction reads the other one
	if invite.From() == nil || invite.To() == nil || invite.Contact() == nil || invite.CallID() == nil || invite.CSeq() == nil {
		return nil, errHeaders
	}
	invite.To().Params.Add("tag", sip.GenerateTagN(16))
	id, err := sip.DialogIDFromRequestUAS(invite)
	if err != nil {
		return nil, errHeaders
	}
	return &dialog{
		client: client, contact: contactOf(at, req.Transport()), invite: invite, tx: tx, id: id, acked: make(chan struct{}), ended: make(chan struct{}),
		remoteCSeq: invite.CSeq().SeqNo, target: *invite.Contact().Address.Clone(),
	}, nil
}

// contactOf returns the Contact of a dialog. A request of the switch that goes to it takes the way that the INVITE
// took.
func contactOf(at netip.AddrPort, transport string) sip.Header {
	u := sip.Uri{Scheme: "sip", User: "ai-bridge", Host: at.Addr().String(), Port: int(at.Port())}
	if sip.IsReliable(transport) {
		u.UriParams = sip.NewParams()
		u.UriParams.Add("transport", strings.ToLower(transport))
	}
	return &sip.ContactHeader{Address: u}
}

// respond answers the INVITE.
func (d *dialog) respond(status int, text string, body []byte, headers ...sip.Header) error {
	if err := d.tx.Respond(d.response(d.invite, status, text, body, headers...)); err != nil {
		return fmt.Errorf("respond %d: %w", status, err)
	}
	return nil
}

// isWith tells whether a request comes from the address that the INVITE came from. Whoever knows the tags of a dialog,
// from a log or a trace, cannot speak in it from elsewhere.
func (d *dialog) isWith(req *sip.Request) bool {
	ours, err := netip.ParseAddrPort(d.invite.Source())
	theirs, err2 := netip.ParseAddrPort(req.Source())
	return err == nil && err2 == nil && ours.Addr() == theirs.Addr()
}

// response returns an answer to a request of the dialog.
func (d *dialog) response(req *sip.Request, status int, text string, body []byte, headers ...sip.Header) *sip.Response {
	res := sip.NewResponseFromRequest(req, status, text, body)
	for _, h := range headers {
		res.AppendHeader(h)
	}
	res.AppendHeader(d.contact)
	res.AppendHeader(allowHeader())
	res.AppendHeader(sip.NewHeader("Supported", "timer"))
	if len(body) > 0 {
		res.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	}
	return res
}

// methods are what is understood.
var methods = []string{"INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "UPDATE", "NOTIFY"}

func allowHeader() sip.Header { return sip.NewHeader("Allow", strings.Join(methods, ", ")) }

// errNoAck means that the switch did not acknowledge the answer.
var errNoAck = errors.New("no ACK")

// confirm sends a 200 again until it is acknowledged (RFC 3261, 13.3.1.4). Errors: errNoAck, ctx's.
func (d *dialog) confirm(ctx context.Context, req *sip.Response) error {
	giveUp := time.After(64 * sip.T1)
	for pause := sip.T1; ; pause = min(2*pause, sip.T2) {
		select {
		case <-d.acked:
			return nil
		case <-d.ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-giveUp:
			return errNoAck
		case <-time.After(pause):
			if err := d.tx.Respond(req); err != nil {
				return fmt.Errorf("respond again: %w", err)
			}
		}
	}
}

// take checks the order of a request of the switch, and takes its Contact if it is a target refresh (RFC 3261, 12.2.2).
func (d *dialog) take(req *sip.Request) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if req.CSeq() == nil || req.CSeq().SeqNo <= d.remoteCSeq {
		return false
	}
	d.remoteCSeq = req.CSeq().SeqNo
	if c := req.Contact(); c != nil && (req.IsInvite() || req.Method == sip.UPDATE) {
		d.target = *c.Address.Clone()
	}
	return true
}

func (d *dialog) acknowledge() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.isAcked {
		d.isAcked = true
		close(d.acked)
	}
}

func (d *dialog) end(bye *sip.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.isEnded {
		d.isEnded, d.bye = true, bye
		close(d.ended)
	}
}

// over tells whether the switch has ended the dialog.
func (d *dialog) over() bool {
	select {
	case <-d.ended:
		return true
	default:
		return false
	}
}

// request sends a request to the switch and returns the final answer. It goes where the INVITE came from: what Contact
// says may be the switch's address for others. Only if a connection is gone, which cannot be made anew from here, it
// goes to Contact; but not a REFER, which the switch may have read before: it would transfer twice.
func (d *dialog) request(ctx context.Context, method sip.RequestMethod, headers ...sip.Header) (*sip.Response, error) {
	req := d.build(method, headers)
	req.SetDestination(d.invite.Source())
	res, err := d.client.Do(ctx, req, sipgo.ClientRequestAddVia)
	if err != nil && ctx.Err() == nil && method != sip.REFER && sip.IsReliable(d.invite.Transport()) {
		res, err = d.client.Do(ctx, d.build(method, headers), sipgo.ClientRequestAddVia)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strings.ToLower(method.String()), err)
	}
	return res, nil
}

// build returns a request to the switch's Contact.
func (d *dialog) build(method sip.RequestMethod, headers []sip.Header) *sip.Request {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cseq++
	req := sip.NewRequest(method, *d.target.Clone())
	from, to := d.invite.To().AsFrom(), d.invite.From().AsTo()
	forwards := sip.MaxForwardsHeader(70)
	req.AppendHeader(&from)
	req.AppendHeader(&to)
	req.AppendHeader(sip.HeaderClone(d.invite.CallID()))
	req.AppendHeader(&sip.CSeqHeader{SeqNo: d.cseq, MethodName: method})
	req.AppendHeader(&forwards)
	for _, h := range d.invite.GetHeaders("Record-Route") {
		req.AppendHeader(sip.NewHeader("Route", h.Value()))
	}
	req.AppendHeader(d.contact)
	for _, h := range headers {
		req.AppendHeader(h)
	}
	req.SetBody(nil)
	req.SetTransport(d.invite.Transport())
	req.SetDestination(d.target.HostPort())
	return req
}

// sendBye ends the dialog.
func (d *dialog) sendBye(ctx context.Context, why sip.Header) error {
	_, err := d.request(ctx, sip.BYE, why)
	return err
}

// supports tells whether a request lists an extension as supported.
func supports(req *sip.Request, extension string) bool {
	return lists(req, "Supported", extension) || lists(req, "k", extension)
}

// lists tells whether a header that is a list of tokens has one.
func lists(req *sip.Request, header, token string) bool {
	for _, h := range req.GetHeaders(header) {
		if slices.ContainsFunc(strings.Split(h.Value(), ","), func(s string) bool { return strings.EqualFold(strings.TrimSpace(s), token) }) {
			return true
		}
	}
	return false
}
