package cdr_test

import (
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
)

// A caller writes what he likes into his requests: it neither fills the ledger nor makes his record another tenant's.
func TestHeadersOfCallers(t *testing.T) {
	t.Parallel()
	gateway := uuid.NewString()
	doc, err := cdr.Parse([]byte(`{"variables":{"uuid":"` + uuid.NewString() + `","direction":"inbound","start_uepoch":"1795000000000000","sip_gateway":"` + gateway + `",
		"sip_h_X-a":"1","sip_bye_h_X-b":"2","sip_rh_c":"3","sip_ph_d":"4","sip_info_h_e":"5","sip_hangup_phrase":"OK"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if doc.Leg().TrunkID != uuid.Nil {
		t.Error("the caller has chosen his trunk")
	}
	if kept := string(doc.JSON()); strings.Contains(kept, "h_") && !strings.Contains(kept, "sip_hangup_phrase") || strings.Contains(kept, "X-a") || strings.Contains(kept, "X-b") {
		t.Errorf("kept %s", kept)
	}
	called, err := cdr.Parse([]byte(`{"variables":{"uuid":"` + uuid.NewString() + `","direction":"outbound","originating_leg_uuid":"` + uuid.NewString() +
		`","start_uepoch":"1795000000000000","sip_gateway_name":"` + gateway + `"}}`))
	if err != nil || called.Leg().TrunkID.String() != gateway {
		t.Errorf("the leg that we placed on a gateway is of trunk %s, %v", called.Leg().TrunkID, err)
	}
}

// A record of a hundred thousand stations is read in no time, and one that lasted a century has no end.
func TestAbsurdRecords(t *testing.T) {
	t.Parallel()
	doc, err := cdr.Parse([]byte(`{"variables":{"uuid":"` + uuid.NewString() + `","start_uepoch":"946684800000000","end_uepoch":"4102444800000000"},"callflow":[` +
		strings.Repeat("{},", 100_000) + `{"caller_profile":{"destination_number":"1002"}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if l := doc.Leg(); !l.End.IsZero() || l.To != "1002" {
		t.Errorf("%+v", l)
	}
}
