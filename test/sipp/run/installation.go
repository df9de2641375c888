package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/edgvoip/edgvoip/internal/postgres"
)

// What integration-api seed makes, and what the scenarios below know of it.
const (
	tenant         = "tenant-a"
	realm          = "tenant-a.example"
	firstExtension = 1000
	maxCalls       = 2  // of an extension at the same time
	maxChannels    = 30 // of a trunk
	firstDID       = 390612345600
	dids           = 100
	// didTarget takes all calls from carriers; its limit is raised, so that the trunk's is the one that is met.
	didTarget = "1000"
)

// installation is what both switches have in common: a database, an xmlcurl, and the ports of the loopback address at
// which everybody is found. Only one of the switches runs at a time.
type installation struct {
	dir     string
	dsn     string
	admin   *postgres.DB // of the server that the database is on
	name    string       // of the database
	xmlcurl *process
	url     string // of xmlcurl

	internal, external, esl int    // of the switch
	phones                  int    // where all extensions are registered and answer
	caller                  int    // of the phones or the carrier that call
	carriers                [2]int // in order of preference

	credentials string
	eslPassword string
}

// install makes the database and starts xmlcurl. What it returns must be closed even when there is an error.
func install(ctx context.Context, o options, server string) (*installation, error) {
	in := &installation{credentials: "switch:" + rand.Text(), eslPassword: rand.Text()}
	var err error
	if in.dir, err = memoryDir(); err != nil {
		return in, err
	}
	free := ports{taken: map[int]bool{}}
	for _, port := range []*int{&in.internal, &in.external, &in.esl, &in.phones, &in.caller, &in.carriers[0], &in.carriers[1]} {
		if *port, err = free.free(ctx); err != nil {
			return in, err
		}
	}
	listen, err := free.free(ctx)
	if err != nil {
		return in, err
	}
	in.url = "http://127.0.0.1:" + strconv.Itoa(listen)
	if err := in.createDatabase(ctx, server); err != nil {
		return in, err
	}
	if err := in.seed(ctx, o); err != nil {
		return in, err
	}
	return in, in.startXMLCurl(ctx, o)
}

// memoryDir makes a directory in memory, where a switch of ours keeps its log, its database and the documents it
// fetches (freeswitch-conf/README.md), or in the usual place where there is none in memory.
func memoryDir() (string, error) {
	const memory, pattern = "/dev/shm", "edgvoip-sipp-"
	if dir, err := os.MkdirTemp(memory, pattern); err == nil {
		return dir, nil
	}
	return os.MkdirTemp("", pattern)
}

// close stops xmlcurl and drops the database. The files stay.
func (in *installation) close(ctx context.Context) error {
	if in.xmlcurl != nil {
		in.xmlcurl.stop(syscall.SIGINT)
	}
	if in.admin == nil {
		return nil
	}
	var err error
	if in.name != "" {
		_, err = in.admin.Pool().ExecContext(context.WithoutCancel(ctx), "DROP DATABASE "+in.name+" WITH (FORCE)")
	}
	return errors.Join(err, in.admin.Close())
}

func (in *installation) createDatabase(ctx context.Context, server string) error {
	var err error
	if in.admin, err = postgres.Open(postgres.Options{URL: server}, slog.New(slog.DiscardHandler)); err != nil {
		return errors.New("TEST_DATABASE_URL is not a PostgreSQL URL or connection string")
	}
	name := "edgvoip_sipp_" + strings.ToLower(rand.Text())
	if _, err := in.admin.Pool().ExecContext(ctx, "CREATE DATABASE "+name); err != nil {
		return fmt.Errorf("create a database: %w", err)
	}
	in.name = name
	in.dsn, err = withDatabase(server, name)
	return err
}

// withDatabase returns the address of another database on the same server.
func withDatabase(server, name string) (string, error) {
	if !strings.Contains(server, "://") {
		return server + " dbname=" + name, nil // the last value of a name counts
	}
	u, err := url.Parse(server)
	if err != nil {
		return "", errors.New("TEST_DATABASE_URL is not a URL")
	}
	u.Path = "/" + name
	return u.String(), nil
}

// settings are the project's programs' own.
func (in *installation) settings() []string {
	return []string{"DATABASE_URL=" + in.dsn, "SECRET_KEYS_FILE=" + filepath.Join(in.dir, "keys"), "LOG_FORMAT=text"}
}

// seed makes one tenant with its extensions and two carriers.
func (in *installation) seed(ctx context.Context, o options) error {
	api, err := filepath.Abs(o.api)
	if err != nil {
		return err
	}
	key, err := exec.CommandContext(ctx, api, "keygen", "-id", "k1").Output() //nolint:gosec // the program that was asked for
	if err != nil {
		return fmt.Errorf("integration-api keygen: %w", err)
	}
	if err := os.WriteFile(filepath.Join(in.dir, "keys"), key, 0o600); err != nil {
		return err
	}
	arguments := []string{"seed", "-tenants", "1", "-extensions", strconv.Itoa(o.load.extensions)}
	for _, port := range in.carriers {
		arguments = append(arguments, "-trunk", "127.0.0.1:"+strconv.Itoa(port))
	}
	for _, args := range [][]string{{"migrate"}, arguments} {
		cmd, err := command(ctx, in.dir, "integration-api", in.settings(), api, args...)
		if err != nil {
			return err
		}
		err = cmd.Run()
		closeOutput(cmd)
		if err != nil {
			return fmt.Errorf("integration-api %s: %w\n%s", args[0], err, tail(filepath.Join(in.dir, "integration-api.out")))
		}
	}
	return in.raiseLimit(ctx)
}

// raiseLimit lets the target of the DIDs take as many calls as carriers bring.
func (in *installation) raiseLimit(ctx context.Context) error {
	db, err := postgres.Open(postgres.Options{URL: in.dsn}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // nothing is lost
	var r sql.Result
	if r, err = db.Pool().ExecContext(ctx, `UPDATE edgvoip.sip_extensions SET max_concurrent_calls = 1000 WHERE extension = $1`, didTarget); err != nil {
		return fmt.Errorf("raise the limit of %s: %w", didTarget, err)
	}
	if n, err := r.RowsAffected(); err != nil || n != 1 {
		return fmt.Errorf("raise the limit of %s: %d rows, %w", didTarget, n, err)
	}
	return nil
}

func (in *installation) startXMLCurl(ctx context.Context, o options) error {
	program, err := filepath.Abs(o.xmlcurl)
	if err != nil {
		return err
	}
	env := append(in.settings(),
		"XMLCURL_ADDR="+strings.TrimPrefix(in.url, "http://"), "XMLCURL_CREDENTIALS="+in.credentials, "SIP_IP=127.0.0.1", "RTP_IP=127.0.0.1",
		"SIP_PORT="+strconv.Itoa(in.internal), "SIP_EXTERNAL_PORT="+strconv.Itoa(in.external), "SIP_TLS=false",
	)
	cmd, err := command(ctx, in.dir, "xmlcurl", append(env, o.env...), program)
	if err != nil {
		return err
	}
	if in.xmlcurl, err = start("xmlcurl", cmd); err != nil {
		return err
	}
	err = eventually(ctx, 20*time.Second, func() error {
		if err := in.xmlcurl.ended(); err != nil {
			return err
		}
		_, err := in.request(ctx, http.MethodGet, "/readyz", nil)
		return err
	})
	if err != nil {
		return fmt.Errorf("xmlcurl is not ready: %w\n%s", err, tail(in.xmlcurl.output()))
	}
	return nil
}

// request asks xmlcurl, as FreeSWITCH does over a connection of its own. Error: any answer but 200.
func (in *installation) request(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	q, err := http.NewRequestWithContext(ctx, method, in.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	q.Close = true
	user, password, _ := strings.Cut(in.credentials, ":")
	q.SetBasicAuth(user, password)
	q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	answer, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", path, r.Status)
	}
	return answer, err
}

// lookups is how many users and routes xmlcurl has been asked for so far.
type lookups struct{ directory, dialplan int }

func (l lookups) minus(before lookups) lookups {
	return lookups{l.directory - before.directory, l.dialplan - before.dialplan}
}

// lookups asks xmlcurl's own metrics.
func (in *installation) lookups(ctx context.Context) (lookups, error) {
	metrics, err := in.request(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return lookups{}, err
	}
	return parseLookups(metrics)
}

func parseLookups(metrics []byte) (lookups, error) {
	var l lookups
	lines := bufio.NewScanner(bytes.NewReader(metrics))
	for lines.Scan() {
		labels, ok := strings.CutPrefix(lines.Text(), "xmlcurl_lookups_total{")
		if !ok {
			continue
		}
		labels, value, _ := strings.Cut(labels, "} ")
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return l, fmt.Errorf("metrics: %w", err)
		}
		switch {
		case strings.Contains(labels, `section="directory"`):
			l.directory += int(n)
		case strings.Contains(labels, `section="dialplan"`):
			l.dialplan += int(n)
		}
	}
	return l, lines.Err()
}
