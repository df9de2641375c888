package postgres_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/internal/testdb"
)

// issuer returns an issuer on a database, and a tenant.
func issuer(t *testing.T) (*postgres.DB, *integration.Issuer, uuid.UUID) {
	t.Helper()
	db, _ := open(t, testdb.New(t), "edgvoip_api")
	tenant, err := directory.NewProvisioner(db, storetest.Keys(), nil).PutTenant(t.Context(), tenantSpec("shop"), "test")
	if err != nil {
		t.Fatal(err)
	}
	return db, integration.NewIssuer(db, storetest.Keys(), time.Now), tenant.ID
}

// A rotation ends every other secret by its own overlap, also those that an earlier one let live longer; what ends
// before stays as it is.
func TestRotationShortensOverlaps(t *testing.T) {
	t.Parallel()
	db, i, tenant := issuer(t)
	if _, err := i.Add(t.Context(), tenant, "test"); err != nil {
		t.Fatal(err)
	}
	ends := func() (ends []time.Duration, rotated []time.Time) {
		t.Helper()
		secrets, err := db.Secrets(t.Context(), tenant)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range secrets {
			end := time.Duration(-1) // none
			if !s.ExpiresAt.IsZero() {
				end = max(time.Until(s.ExpiresAt).Round(time.Hour), 0)
			}
			ends, rotated = append(ends, end), append(rotated, s.RotatedAt)
		}
		return ends, rotated
	}
	var first time.Time
	for n, tc := range []struct {
		overlap time.Duration
		want    []time.Duration // the newest first
	}{
		{48 * time.Hour, []time.Duration{-1, 48 * time.Hour}},
		{24 * time.Hour, []time.Duration{-1, 24 * time.Hour, 24 * time.Hour}},
		{72 * time.Hour, []time.Duration{-1, 72 * time.Hour, 24 * time.Hour, 24 * time.Hour}},
		{0, []time.Duration{-1, 0, 0, 0, 0}},
	} {
		if _, err := i.Rotate(t.Context(), tenant, tc.overlap, "test"); err != nil {
			t.Fatal(err)
		}
		got, rotated := ends()
		if len(got) != len(tc.want) {
			t.Fatalf("after %v: %v", tc.overlap, got)
		}
		for j := range got {
			if got[j] != tc.want[j] {
				t.Errorf("after %v: secrets end in %v, want %v", tc.overlap, got, tc.want)
				break
			}
		}
		oldest := rotated[len(rotated)-1]
		if n == 0 {
			first = oldest
		}
		if !oldest.Equal(first) {
			t.Errorf("after %v: the oldest was rotated %v, want %v", tc.overlap, oldest, first)
		}
	}
}

// Of rotations at once each ends what those before it made: one secret is left.
func TestRotationsAtOnce(t *testing.T) {
	t.Parallel()
	db, i, tenant := issuer(t)
	var wait sync.WaitGroup
	failures := make([]error, 8)
	for n := range failures {
		wait.Go(func() { _, failures[n] = i.Rotate(t.Context(), tenant, 0, "test") })
	}
	wait.Wait()
	if err := errors.Join(failures...); err != nil {
		t.Fatal(err)
	}
	secrets, err := db.Secrets(t.Context(), tenant)
	if err != nil || len(secrets) != len(failures) {
		t.Fatal(secrets, err)
	}
	left := 0
	for _, s := range secrets {
		if s.Valid(time.Now()) {
			left++
		}
	}
	if left != 1 {
		t.Errorf("%d secrets are good, want the last one", left)
	}
}
