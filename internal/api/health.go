package api

import (
	"context"
	"errors"
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

// healthPath is where health is, behind the base path.
const healthPath = "/health"

func (a *API) registerHealth() {
	handle(a, huma.Operation{
		OperationID: "get-health", Method: http.MethodGet, Path: BasePath + healthPath, Summary: "See whether all is well",
		Description: "Needs no credentials. 503 with the same body if requests cannot be worked on.", Tags: []string{"integration"},
		Errors: []int{http.StatusTooManyRequests},
	}, a.getHealth)
	a.alike(BasePath+healthPath, http.StatusOK, http.StatusServiceUnavailable)
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

// figuresPatience bounds how long the database may take to say how all is. Longer is as bad as not at all, and whoever
// asks for health does not wait so long.
const figuresPatience = 2 * time.Second

// errNoFigures is the error while the database is silent.
var errNoFigures = errors.New("the figures of health take too long")

// figures are remembered for a moment: everybody may ask for them. The store is asked once at a time, and not for
// longer than figuresPatience, whoever goes away meanwhile.
type figures struct {
	store Store
	age   time.Duration
	now   func() time.Time

	mu   sync.Mutex
	last integration.Figures
	err  error
	at   time.Time
	// over is closed when the question that is under way is answered, or has taken too long; nil if there is none.
	over <-chan struct{}
}

// get returns the figures as they are, or were a moment ago. Errors: the store's, errNoFigures, ctx's.
func (f *figures) get(ctx context.Context) (integration.Figures, error) {
	f.mu.Lock()
	if !f.at.IsZero() && f.now().Sub(f.at) < f.age {
		defer f.mu.Unlock()
		return f.last, f.err
	}
	if f.over == nil {
		asking, end := context.WithTimeout(context.WithoutCancel(ctx), figuresPatience)
		f.over = asking.Done()
		go f.ask(asking, end)
	}
	over := f.over
	f.mu.Unlock()
	select {
	case <-ctx.Done():
		return integration.Figures{}, ctx.Err()
	case <-over:
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over == over {
		return integration.Figures{}, errNoFigures
	}
	return f.last, f.err
}

// ask asks the store. A failure is remembered as well, from when it is known: the next would wait as long for the same.
func (f *figures) ask(ctx context.Context, end context.CancelFunc) {
	defer end()
	last, err := f.store.Figures(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last, f.err, f.at, f.over = last, err, f.now(), nil
}
