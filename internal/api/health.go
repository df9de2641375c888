package api

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgvoip/edgvoip/integration"
)

// Health is the answer to GET /health.
type Health struct {
	Status               string     `json:"status" enum:"ok,degraded,down" doc:"down: requests cannot be worked on. degraded: they can, but not every switch answers."`
	LastSyncW3           *time.Time `json:"lastSyncW3" nullable:"true" doc:"W3's last request that was let in, to about ten seconds; null if there was none."`
	DomainsActive        int        `json:"domainsActive"`
	ExtensionsRegistered int        `json:"extensionsRegistered" doc:"Phones that are registered now, on all switches."`
	SIPCoreStatus        string     `json:"sipCoreStatus" enum:"up,degraded,down,unknown" doc:"unknown: there is no switch to ask."`
}

func (a *API) registerHealth() {
	handle(a, huma.Operation{
		OperationID: "get-health", Method: http.MethodGet, Path: BasePath + "/health", Summary: "See whether all is well",
		Description: "Needs no credentials. 503 with the same body if requests cannot be worked on.", Tags: []string{"integration"},
		Errors: []int{http.StatusTooManyRequests},
	}, a.getHealth)
	a.alike(BasePath+"/health", http.StatusOK, http.StatusServiceUnavailable)
}

type healthAnswer struct {
	Status int
	Body   Health
}

func (a *API) getHealth(ctx context.Context, _ *struct{}) (*healthAnswer, error) {
	core := a.core.Status()
	h := Health{Status: "ok", ExtensionsRegistered: a.core.Registrations(), SIPCoreStatus: string(core)}
	if core == CoreDegraded || core == CoreDown {
		h.Status = "degraded"
	}
	f, err := a.figures.get(ctx)
	if err != nil {
		h.Status = "down"
		infoOf(ctx).event.Add("cause", err.Error())
		return &healthAnswer{http.StatusServiceUnavailable, h}, nil
	}
	h.DomainsActive = f.DomainsActive
	if !f.LastUse.IsZero() {
		at := f.LastUse.UTC()
		h.LastSyncW3 = &at
	}
	return &healthAnswer{http.StatusOK, h}, nil
}

// figures are remembered for a moment: everybody may ask for them.
type figures struct {
	store Store
	age   time.Duration
	now   func() time.Time

	mu   sync.Mutex
	last integration.Figures
	err  error
	at   time.Time
}

func (f *figures) get(ctx context.Context) (integration.Figures, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := f.now(); f.at.IsZero() || now.Sub(f.at) >= f.age {
		// A failure is remembered as well: everybody may ask, and the next would wait as long for the same.
		f.last, f.err = f.store.Figures(ctx)
		f.at = now
	}
	return f.last, f.err
}
