package aibridge_test

import (
	"context"
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/aisession"
	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/internal/aibridge"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/internal/testlog"
	"github.com/edgvoip/edgvoip/test/mockgateway"
	"github.com/edgvoip/edgvoip/webhook"
)

// scene is a bridge between a mock gateway, over TLS, and whoever calls.
type scene struct {
	t        testing.TB
	gateway  *mockgateway.Gateway
	client   *aisession.Client
	bridge   *aibridge.Bridge
	trunks   fakeTrunks
	registry *prometheus.Registry
	log      *testlog.Lines
	stop     context.CancelFunc
	done     chan struct{}
}

// fakeTrunks are trunks by id.
type fakeTrunks map[uuid.UUID]aisession.Trunk

func (f fakeTrunks) Trunk(id uuid.UUID) (aisession.Trunk, error) {
	t, ok := f[id]
	if !ok {
		return t, aisession.ErrUnknownTrunk
	}
	return t, nil
}

const hmacSecret = "evs_test-secret"

// newScene returns a scene whose bridge is changed by f. Everything is gone at the end of the test.
func newScene(tb testing.TB, f func(*aibridge.Options, *mockgateway.Options)) *scene {
	tb.Helper()
	return newSceneBehind(tb, func(gateway http.Handler) http.Handler { return gateway }, f)
}

// newSceneBehind returns a scene whose gateway is reached through front, which may change what it says.
func newSceneBehind(tb testing.TB, front func(http.Handler) http.Handler, f func(*aibridge.Options, *mockgateway.Options)) *scene {
	tb.Helper()
	s := &scene{t: tb, trunks: fakeTrunks{}, registry: prometheus.NewRegistry(), log: &testlog.Lines{}, done: make(chan struct{})}
	log := slog.New(slog.NewTextHandler(io.MultiWriter(s.log), nil))
	line, err := secret.NewKeyLine("test")
	if err != nil {
		tb.Fatal(err)
	}
	keys, err := secret.ParseKeyRing([]byte(line))
	if err != nil {
		tb.Fatal(err)
	}
	breakers := aisession.NewBreakers(time.Now)
	o := aibridge.Options{
		Addr: netip.MustParseAddrPort("127.0.0.1:0"), Peers: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Trunks: s.trunks,
		Limits: aisession.NewLimits(1000, 1000), Breakers: breakers, ConnectBudget: 4 * time.Second,
		AgentSilence: 2 * time.Second, CallerSilence: 2 * time.Second, DrainTimeout: time.Minute, Loopback: true, Log: log,
	}
	g := mockgateway.Options{Secret: hmacSecret, Loopback: true, After: 300 * time.Millisecond, Log: log}
	if f != nil {
		f(&o, &g)
	}
	o.Metrics = aibridge.NewMetrics(s.registry, func() float64 { return float64(breakers.Open()) }, func() float64 { return 0 })
	if s.gateway, err = mockgateway.New(g); err != nil {
		tb.Fatal(err)
	}
	server := httptest.NewTLSServer(front(s.gateway))
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	networks, err := webhook.ParseNetworks("127.0.0.0/8")
	if err != nil {
		tb.Fatal(err)
	}
	client := aisession.NewClient(aisession.Options{Keys: keys, Budget: max(1500*time.Millisecond, o.ConnectBudget*3/8), Allow: networks, Roots: roots})
	s.client = client
	switch wrapper := o.Sessions.(type) {
	case *nowhere:
		wrapper.Sessions = client
	case *forbidden:
		wrapper.Sessions = client
	case *clumsy:
		wrapper.Sessions = client
	default:
		o.Sessions = client
	}
	base, err := webhook.ParseBaseURL(server.URL)
	if err != nil {
		tb.Fatal(err)
	}
	s.gatewayOf(keys, base)
	if s.bridge, err = aibridge.New(tb.Context(), o); err != nil {
		tb.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(tb.Context()))
	s.stop = stop
	go func() {
		defer close(s.done)
		if err := s.bridge.Run(ctx); err != nil {
			tb.Error(err)
		}
	}()
	tb.Cleanup(func() {
		stop()
		<-s.done
		s.gateway.Close()
		server.CloseClientConnections()
		server.Close()
		client.Close()
	})
	return s
}

// agents are the trunks of a scene, by the name of their agent.
var tenant = uuid.MustParse("11111111-1111-4111-8111-111111111111")

// gatewayOf adds a trunk without a fault, and one for each fault.
func (s *scene) gatewayOf(keys *secret.KeyRing, base webhook.BaseURL) {
	one := integration.Secret{ID: uuid.New(), TenantID: tenant}
	one.HMAC = keys.Seal([]byte(hmacSecret), "hmac|"+tenant.String()+"|"+one.ID.String())
	for _, f := range append([]mockgateway.Fault{mockgateway.None}, mockgateway.Faults...) {
		t := aisession.Trunk{ID: trunkOf(f), TenantID: tenant, StoreID: uuid.MustParse("22222222-2222-4222-8222-222222222222"), AgentRef: "demo+" + string(f), Gateway: base, Secrets: []integration.Secret{one}}
		if f == mockgateway.None {
			t.AgentRef = "demo"
		}
		s.trunks[t.ID] = t
	}
}

// trunkOf returns the trunk whose agent has a fault.
func trunkOf(f mockgateway.Fault) uuid.UUID { return uuid.NewSHA1(tenant, []byte(f)) }

// value returns the value of a metric, zero if it has none yet. label is that of the metric's last label; empty means
// that it has none.
func (s *scene) value(name, label string) float64 {
	s.t.Helper()
	list, err := s.registry.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, family := range list {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			if l := m.GetLabel(); label == "" || l[len(l)-1].GetValue() == label {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

// counted returns how many calls ended in a way.
func (s *scene) counted(outcome string) float64 { return s.value("aibridge_calls_total", outcome) }

// dropped returns how many packets of one side were dropped for a reason.
func (s *scene) dropped(reason string) float64 {
	return s.value("aibridge_packets_dropped_total", reason)
}

// active returns how many calls there are.
func (s *scene) active() int { return int(s.value("aibridge_calls", "")) }
