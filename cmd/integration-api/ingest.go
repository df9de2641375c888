package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/internal/api"
	"github.com/edgvoip/edgvoip/internal/httpd"
	"github.com/edgvoip/edgvoip/internal/ingest"
	"github.com/edgvoip/edgvoip/internal/records"
	common "github.com/edgvoip/edgvoip/internal/settings"
)

// ingestTimeout bounds the taking of one document: FreeSWITCH keeps it in a file after that.
const ingestTimeout = 5 * time.Second

// off is the CDR_ADDR of a process that takes no call records.
const off = "off"

// takesCDR tells whether the process takes call records.
func (s settings) takesCDR() bool { return s.CDRAddr != "" && s.CDRAddr != off }

// buildRecords makes what takes call records, unless that is turned off, and what works on them.
func (p *process) buildRecords() error {
	s := p.settings
	o := records.Options{
		Store: p.db, URL: func(r cdr.Recording) string { return api.RecordingURL(s.PublicURL, r.CallID) }, Registry: p.registry, Log: p.log,
	}
	if s.RecordingsDir != "" {
		var err error
		if p.recordings, err = records.OpenFiles(s.RecordingsDir); err != nil {
			return fmt.Errorf("RECORDINGS_DIR: %w", err)
		}
		o.Files = p.recordings
	}
	p.records = records.New(o)
	if !s.takesCDR() {
		return nil
	}
	credentials, err := common.ReadCredentials(s.CDRCredentialsFile)
	if err != nil {
		return fmt.Errorf("CDR_CREDENTIALS_FILE: %w", err)
	}
	certificate, err := s.cdrListener().TLS(p.log)
	if err != nil {
		return err
	}
	p.ingest = httpd.New(httpd.Options{
		Name: "cdr", BodyLimit: ingest.BodyLimit, RequestTimeout: ingestTimeout, TLS: certificate, Ready: p.db.Ping, Registry: p.registry, Public: true, Log: p.log,
	})
	ingest.New(ingest.Options{Store: p.db, Credentials: credentials, Wake: p.records.Wake, Registry: p.registry, Log: p.log}).Register(p.ingest)
	return nil
}

// recordingFiles are the recordings for the API, or nil.
func (p *process) recordingFiles() api.RecordingFiles {
	if p.recordings == nil {
		return nil
	}
	return p.recordings
}

// cdrListener returns the settings of the listener for call records.
func (s settings) cdrListener() common.Listener {
	return common.Listener{
		Prefix: "CDR", Addr: s.CDRAddr, TLSCertFile: s.CDRTLSCertFile, TLSKeyFile: s.CDRTLSKeyFile, TLSClientCAFile: s.CDRTLSClientCAFile,
		AllowPlain: s.CDRAllowPlain,
	}
}

// checkCDR checks what call records need.
func (s settings) checkCDR() error {
	public, err := url.Parse(s.PublicURL)
	switch {
	case s.PublicURL != "" && (err != nil || public.Host == "" || public.Path != "" || public.RawQuery != "" || public.Scheme != "https" && public.Scheme != "http"):
		return errors.New("API_PUBLIC_URL is not https:// and a host, without a path")
	case s.RecordingsDir != "" && s.PublicURL == "":
		return errors.New("RECORDINGS_DIR needs API_PUBLIC_URL: recordings are asked for there")
	case !s.takesCDR():
		return nil
	}
	if err := s.cdrListener().Check(); err != nil {
		return err
	}
	if s.CDRCredentialsFile == "" {
		return errors.New("CDR_CREDENTIALS_FILE is not set: it holds the user:password that switches post call records with (CDR_ADDR=off takes none)")
	}
	return nil
}

// runIngest takes call records until ctx ends.
func (p *process) runIngest(ctx context.Context, l net.Listener) error {
	if l == nil {
		return nil
	}
	return p.ingest.Run(ctx, l, p.settings.ShutdownTimeout)
}

// listenCDR opens the port for call records, or none.
func (p *process) listenCDR(ctx context.Context) (net.Listener, error) {
	if p.ingest == nil {
		return nil, nil //nolint:nilnil // turned off
	}
	l, err := httpd.Listen(ctx, p.settings.CDRAddr)
	if err != nil {
		return nil, fmt.Errorf("CDR_ADDR: %w", err)
	}
	p.log.InfoContext(ctx, "taking call records", "addr", l.Addr().String(), "tls", p.settings.CDRTLSCertFile != "")
	return l, nil
}
