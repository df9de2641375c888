package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// expectHeard waits until xmlcurl, if it runs, has heard of every change that is committed: on a busy machine that takes longer
// than the way from a test to the switch.
func (s *scene) expectHeard(t *testing.T) {
	t.Helper()
	if s.xmlcurl == nil || s.xmlcurl.alive() != nil {
		return
	}
	// A test's own context has ended when what it changed is put back.
	ctx := context.WithoutCancel(t.Context())
	var last int64
	if err := s.db.QueryRowContext(ctx, `SELECT coalesce(max(id), 0) FROM edgvoip.changes`).Scan(&last); err != nil {
		t.Fatal(err)
	}
	eventually(t, answerTime, func() error {
		heard, err := s.heard(ctx)
		if err == nil && heard < float64(last) {
			err = fmt.Errorf("xmlcurl has heard of changes up to %.0f, of %d", heard, last)
		}
		return err
	})
}

// heard asks xmlcurl for the number up to which it has heard of all changes.
func (s *scene) heard(ctx context.Context) (float64, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, s.xmlcurlURL+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	all, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, err
	}
	const name = "\nxmlcurl_change_heard "
	_, after, _ := strings.Cut(string(all), name)
	value, _, found := strings.Cut(after, "\n")
	if !found {
		return 0, fmt.Errorf("xmlcurl answers %s, without%s", r.Status, name)
	}
	return strconv.ParseFloat(value, 64)
}
