package e2e_test

import (
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/test/w3receiver"
	"github.com/edgvoip/edgvoip/webhook"
)

// w3 is W3's receiving side, over HTTPS with the scene's certificate.
type w3 struct {
	url      string
	receiver *w3receiver.Receiver

	mu   sync.Mutex
	took map[string][][]byte // bodies of the events that had their effect, in order, by subject
}

func (s *scene) startW3(t *testing.T) *w3 {
	t.Helper()
	w := &w3{took: map[string][][]byte{}}
	var err error
	w.receiver, err = w3receiver.New(w3receiver.Options{Took: func(_, subject string, body []byte) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.took[subject] = append(w.took[subject], slices.Clone(body))
	}})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.url = "https://" + listener.Addr().String()
	certificate := filepath.Join(s.dir, "tls", "agent.pem") // and its key
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: w.receiver, TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	go func() { _ = server.ServeTLS(listener, certificate, certificate) }()
	t.Cleanup(func() { server.Close() })
	return w
}

// calls returns what W3 was told of each call, in order.
func (w *w3) calls(t *testing.T) map[string][]cdr.Event {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string][]cdr.Event{}
	for subject, bodies := range w.took {
		for _, body := range bodies {
			var e cdr.Event
			if err := json.Unmarshal(body, &e); err != nil {
				t.Fatalf("%v\n%s", err, body)
			}
			if e.Event == string(webhook.CDR) {
				all[subject] = append(all[subject], e)
			}
		}
	}
	return all
}

// trunk returns what W3 was told of a trunk, in order.
func (w *w3) trunk(t *testing.T, id string) []webhook.TrunkEvent {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	events := make([]webhook.TrunkEvent, len(w.took[id]))
	for i, body := range w.took[id] {
		if err := json.Unmarshal(body, &events[i]); err != nil {
			t.Fatalf("%v\n%s", err, body)
		}
	}
	return events
}

// expectHonest fails unless every request was believed, and each event came once and in order.
func (w *w3) expectHonest(t *testing.T) {
	t.Helper()
	r := w.receiver.Report()
	if len(r.Refused) > 0 || len(r.Conflicts) > 0 || len(r.OutOfOrder) > 0 || r.Received != r.Effects {
		t.Errorf("W3 received %d events, of which %d had their effect; refused %v, with two bodies %v, out of order %v",
			r.Received, r.Effects, r.Refused, r.Conflicts, r.OutOfOrder)
	}
}
