package aibridge

import (
	"strings"

	"github.com/emiago/sipgo/sip"
	"github.com/google/uuid"
)

// What the dialplan tells of a call.
const (
	headerTrunk = "X-edgvoip-Trunk"
	headerCall  = "X-edgvoip-Call"
)

// respond answers a request. One that cannot be sent is asked for again by whoever waits for it.
func respond(tx sip.ServerTransaction, res *sip.Response) { _ = tx.Respond(res) }

// outside answers a request of a dialog that does not exist.
func outside(req *sip.Request, tx sip.ServerTransaction) {
	respond(tx, sip.NewResponseFromRequest(req, sip.StatusCallTransactionDoesNotExists, "Call Does Not Exist", nil))
}

// invite takes a call, or a change of one.
func (b *Bridge) invite(req *sip.Request, tx sip.ServerTransaction) {
	if req.To() != nil && req.To().Params.Has("tag") {
		b.update(req, tx)
		return
	}
	d, err := newDialog(b.client, b.Addr(), req, tx)
	if err != nil {
		respond(tx, sip.NewResponseFromRequest(req, sip.StatusBadRequest, "Bad Request", nil))
		return
	}
	c := newCall(b, d)
	c.run()
}

// ack confirms an answer to an INVITE. One for a re-INVITE confirms as well what was confirmed before.
func (b *Bridge) ack(req *sip.Request, _ sip.ServerTransaction) {
	if c := b.find(req); c != nil {
		c.dialog.acknowledge()
		c.lateAnswer(req)
	}
}

func (b *Bridge) bye(req *sip.Request, tx sip.ServerTransaction) {
	c := b.find(req)
	if c == nil {
		outside(req, tx)
		return
	}
	// First, so that what comes after the answer finds no dialog.
	c.dialog.end(req)
	respond(tx, c.dialog.response(req, sip.StatusOK, "OK", nil))
}

// update changes or refreshes a dialog (RFC 3311, RFC 4028), with or without an offer; so does a re-INVITE.
func (b *Bridge) update(req *sip.Request, tx sip.ServerTransaction) {
	if c := b.find(req); c != nil {
		respond(tx, c.change(req))
		return
	}
	outside(req, tx)
}

// notify hears what became of a transfer (RFC 3515, 2.4.4).
func (b *Bridge) notify(req *sip.Request, tx sip.ServerTransaction) {
	c := b.find(req)
	if c == nil {
		outside(req, tx)
		return
	}
	if !c.dialog.take(req) {
		respond(tx, c.dialog.response(req, sip.StatusInternalServerError, "Out Of Order", nil))
		return
	}
	respond(tx, c.dialog.response(req, sip.StatusOK, "OK", nil))
	c.transferNews(string(req.Body()))
}

// options says that the bridge is there, and whether it takes calls.
func (b *Bridge) options(req *sip.Request, tx sip.ServerTransaction) {
	res := sip.NewResponseFromRequest(req, sip.StatusOK, "OK", nil)
	if b.Ready() != nil {
		res = sip.NewResponseFromRequest(req, sip.StatusServiceUnavailable, "Service Unavailable", nil)
	}
	res.AppendHeader(allowHeader())
	res.AppendHeader(sip.NewHeader("Accept", "application/sdp"))
	res.AppendHeader(sip.NewHeader("Supported", "timer"))
	respond(tx, res)
}

func (b *Bridge) notAllowed(req *sip.Request, tx sip.ServerTransaction) {
	res := sip.NewResponseFromRequest(req, sip.StatusMethodNotAllowed, "Method Not Allowed", nil)
	res.AppendHeader(allowHeader())
	respond(tx, res)
}

// callHeaders reads what the dialplan tells of a call.
func callHeaders(req *sip.Request) (trunk, call uuid.UUID, ok bool) {
	read := func(name string) uuid.UUID {
		list := req.GetHeaders(name)
		if len(list) != 1 {
			return uuid.Nil
		}
		id, err := uuid.Parse(list[0].Value())
		if err != nil {
			return uuid.Nil
		}
		return id
	}
	trunk, call = read(headerTrunk), read(headerCall)
	return trunk, call, trunk != uuid.Nil && call != uuid.Nil
}

// callerNumber returns the number in From; empty if it is withheld or no number.
func callerNumber(req *sip.Request) string {
	user := req.From().Address.User
	digits := strings.TrimPrefix(user, "+")
	if len(digits) < 1 || len(digits) > 20 || strings.Trim(digits, "0123456789") != "" {
		return ""
	}
	return user
}
