package postgres_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/node"
)

// A fault that passes says so, within a transaction and without, and is still the server's own error. Others do not.
func TestFaults(t *testing.T) {
	t.Parallel()
	db, look, nodes := fleet(t, "fs1")
	held, err := db.AddClaimedJob(t.Context(), node.Job{
		TenantID: storetest.TenantID("tenant-a"), NodeID: nodes[0].ID, Kind: node.KindUser, Subject: "held", Payload: json.RawMessage("{}"),
	}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	exec1(t, look, `CREATE FUNCTION edgvoip.fail() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN RAISE EXCEPTION 'fault' USING ERRCODE = NEW.subject; END $$`)
	exec1(t, look, `CREATE TRIGGER fail BEFORE INSERT ON edgvoip.jobs FOR EACH ROW EXECUTE FUNCTION edgvoip.fail()`)
	for code, want := range map[string]bool{
		"08006": true, "40001": true, "40P01": true, "53300": true, "57014": true, "57P01": true, "57P03": true,
		"23505": false, "42501": false, "42P01": false, "22023": false, "XX000": false,
	} {
		j := held
		j.Subject = code
		_, plain := db.AddClaimedJob(t.Context(), j, time.Minute)
		for where, err := range map[string]error{"plain": plain, "in a transaction": db.FinishJob(t.Context(), held, &j, 0)} {
			if pe, ok := errors.AsType[*pq.Error](err); !ok || string(pe.Code) != code {
				t.Errorf("%s, %s: %v", code, where, err)
			}
			var u interface{ Unavailable() bool }
			if got := errors.As(err, &u) && u.Unavailable(); got != want {
				t.Errorf("%s, %s: unavailable %v, want %v", code, where, got, want)
			}
		}
	}
}
