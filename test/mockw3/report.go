package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"

	"github.com/edgvoip/edgvoip/test/w3client"
)

// report is what became of the extensions. It is safe for concurrent use.
type report struct {
	mu                       sync.Mutex
	extensions, failed       int
	created, there, replayed int
	outcomes                 map[string]int // of everything that was sent, by method and what came back
	times                    map[int]int    // requests by how often each was sent
	failures                 []string
}

func newReport() *report { return &report{outcomes: map[string]int{}, times: map[int]int{}} }

func (r *report) sent(method string, a w3client.Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.times[len(a.Outcomes)]++
	for _, outcome := range a.Outcomes {
		r.outcomes[method+" "+outcome]++
	}
	switch {
	case method != http.MethodPost:
	case a.Replayed():
		r.replayed++
	case a.Status == http.StatusCreated:
		r.created++
	case a.Status == http.StatusOK:
		r.there++
	}
}

func (r *report) done(name string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.extensions++
	if err != nil {
		r.failed++
		r.failures = append(r.failures, fmt.Sprintf("%s: %v", name, err))
	}
}

// maxShown is how many failures are told one by one: mostly all have one cause.
const maxShown = 10

// write writes the report for people.
func (r *report) write(w io.Writer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b bytes.Buffer
	failures := slices.Sorted(slices.Values(r.failures))
	for _, failure := range failures[:min(len(failures), maxShown)] {
		fmt.Fprintln(&b, "failed:", failure)
	}
	if more := len(failures) - maxShown; more > 0 {
		fmt.Fprintf(&b, "failed: and %d more\n", more)
	}
	fmt.Fprintf(&b, "%d extensions: %d created, %d were there, %d answered from an earlier request, %d failed\n",
		r.extensions, r.created, r.there, r.replayed, r.failed)
	for _, n := range slices.Sorted(maps.Keys(r.times)) {
		fmt.Fprintf(&b, "  sent %d times: %d requests\n", n, r.times[n])
	}
	for _, outcome := range slices.Sorted(maps.Keys(r.outcomes)) {
		fmt.Fprintf(&b, "  %s: %d\n", outcome, r.outcomes[outcome])
	}
	_, err := w.Write(b.Bytes())
	return err
}
