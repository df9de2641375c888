package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/internal/telemetry"
)

// contestant is a server in the measurement.
type contestant struct {
	name    string
	role    role
	people  population
	db      *database // of xmlcurl
	cold    bool      // does not have everybody in memory from the start
	process *process
	target  *target
}

// failure tells what failed of what a contestant was asked; nil if nothing did.
func (c *contestant) failure(o outcome) error {
	if o.failed == 0 {
		return nil
	}
	return fmt.Errorf("%s: %d of %d answers failed; one of them: %w\nIts log ends in: %s", c.name, o.failed, o.failed+len(o.latencies), o.failure, &c.process.log)
}

// role is what a contestant is compared as.
type role int

const (
	roleFloor role = iota
	roleXMLCurl
	roleAgainst
)

// stage is all that a measurement needs: databases that are filled, and xmlcurl on each of them, ready.
type stage struct {
	options
	questions   questions
	dir         string
	credentials string
	admin       *postgres.DB
	databases   []*database
	contestants []*contestant
	log         *slog.Logger
	progress    io.Writer
}

// newStage sets the stage for the options. A stage that cannot be set is taken down again.
func newStage(ctx context.Context, o options, server string, progress io.Writer) (*stage, error) {
	s := &stage{options: o, credentials: "load:" + rand.Text(), progress: progress}
	err := s.set(ctx, server)
	if err != nil {
		return nil, errors.Join(err, s.close(ctx))
	}
	return s, nil
}

func (s *stage) set(ctx context.Context, server string) (err error) {
	if s.questions, err = readQuestions(s.captured); err != nil {
		return err
	}
	if s.log, err = telemetry.NewLogger(s.progress, telemetry.FormatAuto, "warn"); err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "edgvoip-load-"); err != nil {
		return err
	}
	line, err := secret.NewKeyLine("load")
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.keysFile(), []byte(line), 0o600); err != nil {
		return err
	}
	keys, err := secret.ParseKeyRing([]byte(line))
	if err != nil {
		return err
	}
	if s.admin, err = postgres.Open(postgres.Options{URL: server, Application: "edgvoip-load", MaxConns: 2}, s.log); err != nil {
		return errors.New("TEST_DATABASE_URL is not a PostgreSQL URL or connection string")
	}
	if s.scanning {
		s.sizes = s.sizes[:1]
	}
	for _, n := range s.sizes {
		if err := s.setSize(ctx, server, population{n}, keys); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) keysFile() string { return filepath.Join(s.dir, "keys") }

// setSize fills a database and starts what is measured on it.
func (s *stage) setSize(ctx context.Context, server string, p population, keys *secret.KeyRing) error {
	start := time.Now()
	db, err := createDatabase(ctx, s.admin, server, p, keys, s.log)
	if err != nil {
		return err
	}
	s.databases = append(s.databases, db)
	s.say("database of %d extensions filled in %.1f s", p.extensions, time.Since(start).Seconds())
	for _, program := range []struct {
		name, path string
		role       role
	}{{"xmlcurl", s.xmlcurl, roleXMLCurl}, {"against", s.against, roleAgainst}} {
		if program.path == "" {
			continue
		}
		c := &contestant{name: program.name, role: program.role, people: p, db: db, cold: true}
		if len(s.sizes) > 1 {
			c.name = fmt.Sprintf("%s %d", program.name, p.extensions)
		}
		if err := s.start(ctx, c, program.path); err != nil {
			return err
		}
		s.contestants = append(s.contestants, c)
	}
	return nil
}

// start starts xmlcurl on a database and waits until it is ready.
func (s *stage) start(ctx context.Context, c *contestant, path string) error {
	env := append([]string{
		"XMLCURL_ADDR=127.0.0.1:0", "XMLCURL_CREDENTIALS=" + s.credentials, "DATABASE_URL=" + c.db.url,
		"SECRET_KEYS_FILE=" + s.keysFile(), "LOG_FORMAT=json", "LOG_LEVEL=info",
	}, s.env...)
	if s.warm == warmPreload {
		env = append(env, "XMLCURL_PRELOAD=true")
	}
	start := time.Now()
	var err error
	if c.process, err = startProcess(ctx, c.name, path, nil, env); err != nil {
		return err
	}
	if err = c.process.waitReady(ctx); err == nil {
		c.target, err = newTarget(c.process.addr, s.credentials)
	}
	if err != nil {
		c.process.close()
		return err
	}
	s.say("%s ready after %.2f s", c.name, time.Since(start).Seconds())
	if s.warm != warmPreload {
		return nil
	}
	loaded, err := c.process.waitLoaded(ctx, c.people.extensions)
	if err != nil {
		c.process.close()
		return err
	}
	if loaded {
		s.say("%s has them all in memory after %.2f s", c.name, time.Since(start).Seconds())
	}
	c.cold = !loaded
	return nil
}

// startFloor starts a floor that answers with a document.
func (s *stage) startFloor(ctx context.Context, document []byte) (*contestant, error) {
	file := filepath.Join(s.dir, "document")
	if err := os.WriteFile(file, document, 0o600); err != nil { //nolint:gosec // in our own directory
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &contestant{name: "floor", role: roleFloor, people: s.contestants[0].people}
	env := append([]string{}, s.env...) // not nil, which would be our own
	if c.process, err = startProcess(ctx, c.name, self, []string{"floor", "-document", file}, env); err != nil {
		return nil, err
	}
	if c.target, err = newTarget(c.process.addr, s.credentials); err != nil {
		c.process.close()
		return nil, err
	}
	return c, nil
}

// close takes down what is there, even if ctx has ended.
func (s *stage) close(ctx context.Context) error {
	var errs []error
	for _, c := range s.contestants {
		c.process.close()
	}
	for _, d := range s.databases {
		errs = append(errs, d.drop(ctx))
	}
	if s.admin != nil {
		errs = append(errs, s.admin.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir)) //nolint:gosec // our own directory
	}
	return errors.Join(errs...)
}

// say tells what is going on; if nobody can be told, nothing is lost.
func (s *stage) say(format string, args ...any) {
	_, _ = fmt.Fprintln(s.progress, strings.TrimSuffix(fmt.Sprintf(format, args...), "\n"))
}
