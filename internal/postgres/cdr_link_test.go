package postgres_test

import (
	"fmt"
	"testing"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/internal/storetest"
)

// Both calls of an attended transfer name the other, and the one that was handed on says to whom, whichever is recorded
// first.
func TestAttendedTransfer(t *testing.T) {
	t.Parallel()
	for name, order := range map[string][]int{"in order": {0, 1, 2, 3}, "the other call first": {2, 3, 0, 1}, "from the end": {3, 2, 1, 0}} {
		l := newLedger(t)
		first, asked := uuid.New(), uuid.New()
		boss, friend := uuid.New(), uuid.New()
		source := fmt.Sprintf("%d:%s:uuid_br:", began.Unix()+20, uuid.New())
		vars := map[string]string{"edgvoip_tenant_id": tenantA.String(), "hangup_cause": "NORMAL_CLEARING"}
		documents := []string{
			document(first, "inbound", vars, "transfer_source", source+friend.String(), "last_sent_callee_id_number", "1002%tenant-a.example"),
			document(boss, "outbound", vars, "originating_leg_uuid", first.String(), "transfer_to", "att:"+friend.String(), "refer_uuid", asked.String()),
			document(asked, "inbound", vars),
			document(friend, "outbound", vars, "originating_leg_uuid", asked.String(), "transfer_source", source+first.String(), "last_sent_callee_id_number", "+39333"),
		}
		for _, i := range order {
			l.keep(documents[i])
			l.read()
			l.due()
			l.read()
		}
		l.want(name+": handed on", `SELECT transferred_to || ' ' || related_call_id FROM edgvoip.cdr WHERE call_id = $1`, "1002 "+asked.String(), first)
		l.want(name+": asked", `SELECT transferred_to || ' ' || related_call_id FROM edgvoip.cdr WHERE call_id = $1`, " "+first.String(), asked)
		l.want(name+": told", `SELECT payload::jsonb ->> 'relatedCallId' FROM edgvoip.webhook_events WHERE subject = $1 ORDER BY id DESC LIMIT 1`, asked.String(), first)
	}
}

// A call that was routed to an agent names him, also when the trunk has another by the time that the next leg comes;
// what became of him is in the reason.
func TestAgentOfCall(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	trunk := l.one(`SELECT id FROM edgvoip.sip_trunks WHERE tenant_id = $1 LIMIT 1`, storetest.TenantID("tenant-a"))
	exec1(t, l.look, `UPDATE edgvoip.sip_trunks SET ai_agent_ref = 'reception' WHERE id = $1`, trunk)
	const reason = "agent on: mon 09:00-18:00; agent failed: MEDIA_TIMEOUT"
	id, caller, called := call("agent", "edgvoip_route", "agent", "edgvoip_trunk_id", trunk, "edgvoip_reason", reason)
	_, person, _ := call("person", "edgvoip_route", "extension", "edgvoip_trunk_id", trunk)
	l.keep(caller, person)
	l.read()
	exec1(t, l.look, `UPDATE edgvoip.sip_trunks SET ai_agent_ref = 'another' WHERE id = $1`, trunk)
	l.keep(called)
	l.read()
	l.want("agents", `SELECT string_agg(ai_agent_ref, ',') FROM edgvoip.cdr`, "reception")
	l.want("told", `SELECT concat_ws(' ', payload::jsonb ->> 'aiAgentRef', payload::jsonb ->> 'reason') FROM edgvoip.webhook_events
		WHERE subject = $1 ORDER BY id DESC LIMIT 1`, "reception "+reason, id)
}

// A call is of the store that its trunk had when it was recorded, also when the trunk is another's by the time that the
// next leg comes; if that leg says that another trunk took the call, it is of that one's.
func TestStoreOfCall(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	f := failover(t, "store", true)
	stores := []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}
	var trunks []string
	for _, i := range []int{1, 2} {
		doc, err := cdr.Parse([]byte(f.documents[i]))
		if err != nil {
			t.Fatal(err)
		}
		trunks = append(trunks, doc.Leg().TrunkID.String())
		exec1(t, l.look, `INSERT INTO edgvoip.sip_trunks (tenant_id, id, name, host, store_id) VALUES ($1, $2, $3, '192.0.2.1', $4)`,
			tenantA, trunks[i-1], fmt.Sprint("Trunk ", i), stores[i-1])
	}
	const query = `SELECT concat_ws(' ', count(*), max(revision), max(trunk_id::text), max(store_id::text)) FROM edgvoip.cdr`
	l.keepLeg(f.ids[0], f.documents[0])
	l.keepLeg(f.ids[1], f.documents[1])
	l.read()
	l.want("first", query, "1 1 "+trunks[0]+" "+stores[0].String())
	exec1(t, l.look, `UPDATE edgvoip.sip_trunks SET store_id = $1 WHERE id = $2`, stores[2], trunks[0])
	l.keepLeg(f.ids[1], f.documents[1]+" ")
	l.read()
	l.want("when the trunk has moved", query, "1 1 "+trunks[0]+" "+stores[0].String())
	l.keepLeg(f.ids[2], f.documents[2])
	l.read()
	l.want("when the leg that took it has come", query, "1 2 "+trunks[1]+" "+stores[1].String())
	exec1(t, l.look, `UPDATE edgvoip.sip_trunks SET store_id = $1 WHERE id = $2`, stores[2], trunks[1])
	l.keepLeg(f.ids[0], f.documents[0]+" ")
	l.read()
	l.want("in the end", query, "1 2 "+trunks[1]+" "+stores[1].String())
}
