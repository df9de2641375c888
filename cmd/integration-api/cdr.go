package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/url"
	"strconv"
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

var cdrGroup = group{
	name: "cdr",
	usage: `integration-api cdr works on call records. Commands:

  sweep DIR    send the call records that a switch has kept in files; sweep -help lists the options
  documents    list documents that made no call record: -state unreadable or unassigned
  show ID      print such a document as it came
  retry ID     read it once more
  discard ID   remove it, for good

`,
	commands: map[string]func(*flag.FlagSet, []string) (task, error){
		"documents": parseDocuments, "show": parseShowDocument,
		"retry": func(f *flag.FlagSet, args []string) (task, error) {
			return parseDocument(f, args, func(ctx context.Context, t tools, id int64) error { return t.db.RetryDocument(ctx, id, t.actor) })
		},
		"discard": func(f *flag.FlagSet, args []string) (task, error) {
			return parseDocument(f, args, func(ctx context.Context, t tools, id int64) error { return t.db.DiscardDocument(ctx, id, t.actor) })
		},
	},
}

// cdrs runs a command about call records. A switch that sweeps has no database.
func cdrs(ctx context.Context, args, environ []string, std streams) error {
	if len(args) > 0 && args[0] == "sweep" {
		return commandError("cdr sweep", sweep(ctx, args[1:], environ, std))
	}
	return cdrGroup.run(ctx, args, environ, std)
}

// documentsShown is how many documents are listed.
const documentsShown = 1000

func parseDocuments(flags *flag.FlagSet, args []string) (task, error) {
	state := flags.String("state", string(cdr.DocumentUnreadable), "unreadable or unassigned")
	if _, err := arguments(flags, args); err != nil {
		return nil, err
	}
	if s := cdr.DocumentState(*state); s != cdr.DocumentUnreadable && s != cdr.DocumentUnassigned {
		return nil, errors.New("-state is unreadable or unassigned")
	}
	return func(ctx context.Context, t tools) error {
		docs, err := t.db.KeptDocuments(ctx, cdr.DocumentState(*state), 0, documentsShown)
		if err != nil {
			return err
		}
		rows := [][]string{{"ID", "LEG", "SOURCE", "SENDER", "BYTES", "RECEIVED", "REASON"}}
		for _, d := range docs {
			rows = append(rows, []string{strconv.FormatInt(d.ID, 10), d.LegID.String(), d.Source, d.Sender, strconv.Itoa(d.Size), at(d.ReceivedAt), d.Error})
		}
		return printTable(t.out, rows)
	}, nil
}

func parseShowDocument(flags *flag.FlagSet, args []string) (task, error) {
	return parseDocument(flags, args, func(ctx context.Context, t tools, id int64) error {
		d, err := t.db.KeptDocument(ctx, id)
		if err != nil {
			return err
		}
		_, err = t.out.Write(d.Body)
		return err
	})
}

func parseDocument(flags *flag.FlagSet, args []string, do func(context.Context, tools, int64) error) (task, error) {
	a, err := arguments(flags, args, "ID")
	if err != nil {
		return nil, err
	}
	id, err := strconv.ParseInt(a[0], 10, 64)
	if err != nil {
		return nil, errors.New("ID is not a number")
	}
	return func(ctx context.Context, t tools) error { return do(ctx, t, id) }, nil
}
