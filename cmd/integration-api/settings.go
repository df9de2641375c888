package main

import (
	"errors"
	"fmt"
	"net"
	"time"

	common "github.com/edgvoip/edgvoip/internal/settings"
)

// settings are read from the environment. docs/settings.md describes each; a test keeps the two together.
type settings struct {
	common.Common

	DatabaseRole string `env:"DATABASE_ROLE" envDefault:"edgvoip_api" empty:"stays"`

	Addr            string        `env:"API_ADDR" envDefault:"127.0.0.1:8443"`
	TLSCertFile     string        `env:"API_TLS_CERT_FILE"`
	TLSKeyFile      string        `env:"API_TLS_KEY_FILE"`
	DevelopmentHTTP bool          `env:"API_DEVELOPMENT_HTTP" envDefault:"false"`
	WSEndpoint      string        `env:"API_WS_ENDPOINT" envDefault:"wss://{realm}:8443"`
	RequestTimeout  time.Duration `env:"API_REQUEST_TIMEOUT" envDefault:"10s"`
	RatePerAddress  int           `env:"API_RATE_PER_ADDRESS" envDefault:"200"`
	RatePerTenant   int           `env:"API_RATE_PER_TENANT" envDefault:"100"`
	HashConcurrency int           `env:"API_HASH_CONCURRENCY" envDefault:"0"`

	AIBridgeAddr string `env:"AI_BRIDGE_ADDR" envDefault:"127.0.0.1:5090" empty:"stays"`

	PublicURL          string `env:"API_PUBLIC_URL"`
	RecordingsDir      string `env:"RECORDINGS_DIR"`
	CDRAddr            string `env:"CDR_ADDR" envDefault:"127.0.0.1:8083" empty:"stays"`
	CDRCredentialsFile string `env:"CDR_CREDENTIALS_FILE"`
	CDRTLSCertFile     string `env:"CDR_TLS_CERT_FILE"`
	CDRTLSKeyFile      string `env:"CDR_TLS_KEY_FILE"`
	CDRTLSClientCAFile string `env:"CDR_TLS_CLIENT_CA_FILE"`
	CDRAllowPlain      bool   `env:"CDR_ALLOW_PLAIN" envDefault:"false"`

	MetricsAddr     string        `env:"API_METRICS_ADDR" envDefault:"127.0.0.1:8082"`
	ShutdownTimeout time.Duration `env:"API_SHUTDOWN_TIMEOUT" envDefault:"10s"`

	WebhookTimeout       time.Duration `env:"WEBHOOK_TIMEOUT" envDefault:"15s"`
	WebhookConcurrency   int           `env:"WEBHOOK_CONCURRENCY" envDefault:"64"`
	WebhookAllowNetworks string        `env:"WEBHOOK_ALLOW_NETWORKS"`
	WebhookAllowHTTP     bool          `env:"WEBHOOK_ALLOW_HTTP" envDefault:"false"`
	WebhookCAFile        string        `env:"WEBHOOK_CA_FILE"`
}

// readSettings reads the environment, given as KEY=value, and checks what every command needs. Its error names the
// setting that is wrong and holds no secret.
func readSettings(environ []string) (settings, error) {
	s, err := common.Parse[settings](environ)
	if err != nil {
		return s, err
	}
	return s, s.Check()
}

// leastConns are connections with which serve works: some requests hold one while they ask for another.
const leastConns = 5

// checkServe checks what serve needs besides.
func (s settings) checkServe() error {
	if _, port, err := net.SplitHostPort(s.MetricsAddr); err != nil || port == "" {
		return errors.New("API_METRICS_ADDR is not host:port")
	}
	if s.ShutdownTimeout <= 0 {
		return errors.New("API_SHUTDOWN_TIMEOUT is not positive")
	}
	if s.DatabaseMaxConns < leastConns {
		return fmt.Errorf("DATABASE_MAX_CONNS is less than %d", leastConns)
	}
	return errors.Join(s.checkAPI(), s.checkWebhooks(), s.checkCDR(), s.CheckKeys())
}
