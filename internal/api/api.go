// Package api is the JSON API: of W3, which provisions extensions under /api/v1/integration with a signature on every
// request, and of operators, who manage tenants under /api/v1/admin. It decodes and checks the form of what comes, lets
// the domain packages decide, and turns their errors into problems (RFC 9457). Its document is docs/openapi.yaml.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humafiber"
	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/dialplan"
	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/httpd"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/node"
	"github.com/edgvoip/edgvoip/trunk"
	"github.com/edgvoip/edgvoip/webhook"
)

// Where the API is.
const (
	BasePath  = "/api/v1/integration"
	AdminPath = "/api/v1/admin"
)

// The largest body taken, in bytes: a list of stores is the largest that makes sense. The server reads somewhat more,
// so that whoever sends more is told so, rather than cut off while he sends.
const (
	bodyLimit   = 64 << 10
	serverLimit = 4 * bodyLimit
)

// Store is what the API reads from and writes to. Package postgres implements it.
type Store interface {
	directory.Registry
	directory.Reader
	integration.Registry
	integration.Store
	dialplan.ExplainStore
	trunk.Registry
	webhook.Registry
	webhookEvents
	CallStore
	nodeStore

	// Answered returns the answer that is kept under a claim's key. Error: integration.ErrKeyReused.
	Answered(ctx context.Context, c integration.Claim) (integration.Answer, bool, error)
	// Once runs a write and keeps its answer under the claim's key, in one transaction; or returns the answer that is
	// there. Errors: integration.ErrKeyReused, write's.
	Once(ctx context.Context, c integration.Claim, write func(directory.Writer) (integration.Answer, error)) (a integration.Answer, replayed bool, err error)
	// Prune removes signatures and answers whose time is over.
	Prune(ctx context.Context) (int64, error)
	// AuditLog returns rows of the audit log, the newest first.
	AuditLog(ctx context.Context, f integration.AuditFilter) ([]integration.AuditEntry, error)
	// Figures returns what W3 asks to see whether all is well.
	Figures(ctx context.Context) (integration.Figures, error)
	// Convergence tells of each switch how far it is with what was asked of it about a subject.
	Convergence(ctx context.Context, tenant uuid.UUID, subject string) ([]node.Progress, error)
}

// Core tells how the switches are, from what is known without asking them. Implementations are safe for concurrent use.
type Core interface {
	// Registrations is the number of phones that are registered, on all switches.
	Registrations() int
	// Status is how the switches are.
	Status() CoreStatus
	// Switch tells whether a switch is connected to, and how many phones are registered there.
	Switch(id uuid.UUID) (registrations int, connected bool)
}

// CoreStatus is how the switches are together.
type CoreStatus string

// The states.
const (
	CoreUp       CoreStatus = "up"       // all answer
	CoreDegraded CoreStatus = "degraded" // some do
	CoreDown     CoreStatus = "down"     // none does
	CoreUnknown  CoreStatus = "unknown"  // there is none to ask
)

// Limits bound how often somebody may ask. A zero field takes the default.
type Limits struct {
	// PerAddress is requests a second of one address (one /64 of IPv6), before they are authenticated, and BurstAddress
	// how many may come at once. Defaults: 200 and 400. A request that is not let in costs as much as ten: its address,
	// or if the token is somebody's, that token at the address, which may do as much. Health is bounded by itself, by
	// as much.
	PerAddress   float64
	BurstAddress int
	// PerTenant is requests a second of one tenant. Defaults: 100 and 200.
	PerTenant   float64
	BurstTenant int
}

// Options are what an API needs.
type Options struct {
	Store  Store
	Keys   *secret.KeyRing
	Hasher *secret.Hasher
	// Core may be nil: nothing is known of the switches then.
	Core Core
	// WSEndpoint is where browsers register, with {realm} in the place of the domain's realm: wss://{realm}:8443.
	WSEndpoint string
	// Agents and RecordingsDir are those of xmlcurl, for explanations: where ai-bridge is and where the switch keeps
	// recordings; may be empty.
	Agents, RecordingsDir fstext.Text
	// AllowHTTP lets webhook endpoints be of plain HTTP, for development.
	AllowHTTP bool
	Limits    Limits
	// PublicURL is where W3 reaches the API: https://api.example, without a path. Recordings is where recordings are;
	// nil means that there are none to be had.
	PublicURL  string
	Recordings RecordingFiles
	// FiguresAge is how long the figures of /health may be remembered; zero means not at all.
	FiguresAge time.Duration
	// Now is the clock; nil means the machine's.
	Now      func() time.Time
	Registry prometheus.Registerer
	Log      *slog.Logger
}

// API is the API. Its zero value is not usable, see New. It is safe for concurrent use.
type API struct {
	store       Store
	provisioner *directory.Provisioner
	trunks      *trunk.Provisioner
	issuer      *integration.Issuer
	endpoints   *webhook.Provisioner
	switches    *node.Provisioner
	auth        *integration.Authenticator
	keys        *secret.KeyRing
	core        Core
	wsEndpoint  string
	agents      fstext.Text
	recordDir   fstext.Text
	publicURL   string
	recordings  RecordingFiles
	figures     *figures
	addresses   *limiter
	healths     *limiter // by address
	tokens      *limiter // of those that are known and were not let in, by address
	tenants     *limiter
	preparing   turns
	searching   turns
	erasing     turns
	metrics     *metrics
	now         func() time.Time
	log         *slog.Logger
	huma        huma.API
}

// Error about the endpoint; a wrong one would be told to every browser.
var errEndpoint = errors.New("the WebSocket endpoint does not begin with wss://")

// New returns an API. Register puts it on a server.
func New(o Options) (*API, error) {
	if !strings.HasPrefix(o.WSEndpoint, "wss://") {
		return nil, errEndpoint
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Core == nil {
		o.Core = noCore{}
	}
	a := &API{
		store: o.Store, keys: o.Keys, core: o.Core, wsEndpoint: o.WSEndpoint, agents: o.Agents, recordDir: o.RecordingsDir,
		publicURL: o.PublicURL, recordings: o.Recordings,
		provisioner: directory.NewProvisioner(o.Store, o.Keys, o.Hasher),
		trunks:      trunk.NewProvisioner(o.Store, o.Keys),
		issuer:      integration.NewIssuer(o.Store, o.Keys, o.Now),
		endpoints:   webhook.NewProvisioner(o.Store, o.AllowHTTP),
		switches:    node.NewProvisioner(o.Store, o.Keys),
		auth:        integration.NewAuthenticator(o.Store, o.Keys, o.Now),
		figures:     &figures{store: o.Store, age: o.FiguresAge, now: o.Now},
		addresses:   newLimiter(or(o.Limits.PerAddress, 200), or(o.Limits.BurstAddress, 400), o.Now),
		healths:     newLimiter(or(o.Limits.PerAddress, 200), or(o.Limits.BurstAddress, 400), o.Now),
		tokens:      newLimiter(or(o.Limits.PerAddress, 200), or(o.Limits.BurstAddress, 400), o.Now),
		tenants:     newLimiter(or(o.Limits.PerTenant, 100), or(o.Limits.BurstTenant, 200), o.Now),
		preparing:   turns{name: "preparing", most: mostPreparing},
		searching:   turns{name: "searching", most: mostSearching},
		erasing:     turns{name: "erasing", most: mostErasing},
		metrics:     newMetrics(o.Registry, o.Hasher),
		now:         o.Now,
		log:         o.Log.With("component", "api"),
	}
	return a, nil
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// noCore is what is known of switches when there is nobody to tell.
type noCore struct{}

func (noCore) Registrations() int { return 0 }
func (noCore) Status() CoreStatus { return CoreUnknown }

func (noCore) Switch(uuid.UUID) (registrations int, connected bool) { return 0, false }

// ServerOptions adds to a server's options what the API needs of it: errors in its own form, strings that live on, and
// nothing for strangers.
func ServerOptions(o httpd.Options) httpd.Options {
	o.BodyLimit, o.Immutable, o.Answer, o.Public = serverLimit, true, answerFault, true
	return o
}

// Register puts the API on a server that was made with ServerOptions.
func (a *API) Register(server *httpd.Server) { a.register(server.App()) }

func (a *API) register(app *fiber.App) {
	a.huma = humafiber.New(app, config())
	a.huma.UseMiddleware(func(c huma.Context, next func(huma.Context)) {
		infoOf(c.Context()).operation = c.Operation().OperationID
		next(c)
	})
	// What needs no credentials comes first: a route is tried in order of registration.
	app.Use("/api", a.observe, a.limitAddress)
	a.registerHealth()
	app.Use("/api", a.limitToken)
	app.Use(BasePath, a.authenticate)
	a.registerExtensions()
	a.registerDomains()
	a.registerTrunks()
	app.Use(BasePath+"/cdrs", preferCSV)
	a.registerCDRs()
	app.Use(AdminPath, a.authenticateOperator)
	a.registerAdmin()
	a.registerAdminTrunks()
	a.registerNodes()
	a.registerWebhooks()
	a.registerCDRDocuments()
	describeTimePolicies(a.huma.OpenAPI().Components.Schemas)
	app.Use("/api", a.notHere)
	a.registerRecordings(app)
	a.registerDocs(app)
}

// pruneEvery is how often what is over is removed.
const pruneEvery = time.Minute

// Keep removes signatures and answers whose time is over, until ctx ends. Several processes may do it.
func (a *API) Keep(ctx context.Context) {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := a.store.Prune(ctx); err != nil && ctx.Err() == nil {
			a.log.WarnContext(ctx, "old signatures and answers stay for now", "error", err)
		}
	}
}

// handle registers an operation whose errors become problems.
func handle[I, O any](a *API, op huma.Operation, f func(context.Context, *I) (*O, error)) {
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := f(ctx, in)
		if err != nil {
			return nil, asProblem(ctx, err)
		}
		return out, nil
	})
}

// operation describes an operation of W3's part.
func operation(id, method, path, summary, description string, problems ...int) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: method, Path: BasePath + path, Summary: summary, Description: description, Tags: []string{"integration"},
		Security: []map[string][]string{{"bearer": {}, "timestamp": {}, "signature": {}}},
		Errors:   append([]int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusTooManyRequests, http.StatusServiceUnavailable}, problems...),
		// Bounded by the server already.
		MaxBodyBytes: -1, BodyReadTimeout: 0,
	}
}

// alike says in the document that an operation has the same answer under another status.
func (a *API) alike(path string, status, another int) {
	item := a.huma.OpenAPI().Paths[path]
	for _, op := range []*huma.Operation{item.Get, item.Post} {
		if op == nil || op.Responses[strconv.Itoa(status)] == nil {
			continue
		}
		same := *op.Responses[strconv.Itoa(status)]
		same.Description = http.StatusText(another)
		op.Responses[strconv.Itoa(another)] = &same
	}
}
