package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	common "github.com/edgvoip/edgvoip/internal/settings"

	"github.com/edgvoip/edgvoip/internal/ingest"
)

// sweepTimeout bounds the sending of one file.
const sweepTimeout = 30 * time.Second

// sweepSettings are those that sweep reads from the environment, for a unit.
type sweepSettings struct {
	URL             string `env:"CDR_URL" envDefault:"http://127.0.0.1:8083/cdr"`
	CredentialsFile string `env:"CDR_CREDENTIALS_FILE"`
	CAFile          string `env:"CDR_CA_FILE"`
	CertFile        string `env:"CDR_CLIENT_CERT_FILE"`
	KeyFile         string `env:"CDR_CLIENT_KEY_FILE"`
}

// sweeper sends files of call records.
type sweeper struct {
	url            string
	user, password string
	client         *http.Client
	// age is how old a file is that nobody writes to any more.
	age time.Duration
	err io.Writer
}

// errAway means that no other file would be taken either.
var errAway = errors.New("call records are not taken")

// sweep sends each file of a directory once, and removes it when it is taken. Several may run at once, and any may be
// killed: what is sent twice is kept once.
func sweep(ctx context.Context, args, environ []string, std streams) error {
	s, err := common.Parse[sweepSettings](environ)
	if err != nil {
		return err
	}
	flags := newFlags("cdr sweep", std)
	flags.StringVar(&s.URL, "url", s.URL, "where call records are taken (CDR_URL)")
	flags.StringVar(&s.CredentialsFile, "credentials-file", s.CredentialsFile, "file with user:password (CDR_CREDENTIALS_FILE)")
	flags.StringVar(&s.CAFile, "ca-file", s.CAFile, "certificate authority of the API; the system's if not given (CDR_CA_FILE)")
	flags.StringVar(&s.CertFile, "cert-file", s.CertFile, "client certificate (CDR_CLIENT_CERT_FILE)")
	flags.StringVar(&s.KeyFile, "key-file", s.KeyFile, "its key (CDR_CLIENT_KEY_FILE)")
	age := flags.Duration("age", 5*time.Second, "how old a file must be: a younger one may still be written")
	a, err := arguments(flags, args, "DIR")
	if err != nil {
		return err
	}
	w, err := s.sweeper(*age, std.err)
	if err != nil {
		return err
	}
	sent, kept, err := w.all(ctx, a[0])
	fmt.Fprintf(std.out, "%d sent, %d kept\n", sent, kept)
	if err == nil && kept > 0 {
		err = fmt.Errorf("%d files could not be sent", kept)
	}
	return err
}

func (s sweepSettings) sweeper(age time.Duration, std io.Writer) (*sweeper, error) {
	if s.CredentialsFile == "" {
		return nil, errors.New("-credentials-file is not set")
	}
	credentials, err := common.ReadCredentials(s.CredentialsFile)
	if err != nil {
		return nil, fmt.Errorf("-credentials-file: %w", err)
	}
	w := &sweeper{url: s.URL, age: age, err: std}
	w.user, w.password, _ = strings.Cut(credentials, ":")
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.RootCAs, err = common.ReadAuthorities(s.CAFile); err != nil {
		return nil, fmt.Errorf("-ca-file: %w", err)
	}
	if s.CertFile != "" || s.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("-cert-file and -key-file: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	w.client = &http.Client{
		Timeout: sweepTimeout, Transport: &http.Transport{TLSClientConfig: c},
		// The promise is that of the address which was named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return w, nil
}

// all sends the files of a directory. Those that are younger than they may be, and those that are none, are not
// counted.
func (w *sweeper) all(ctx context.Context, dir string) (sent, kept int, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = root.Close() }()
	names, err := fs.Glob(root.FS(), "*.cdr.json")
	if err != nil {
		return 0, 0, err
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return sent, kept, ctx.Err()
		}
		done, err := w.one(ctx, root, name)
		switch {
		case errors.Is(err, errAway):
			return sent, kept, err
		case err != nil:
			kept++
			fmt.Fprintf(w.err, "%s: %v\n", filepath.Join(dir, name), err)
		case done:
			sent++
		}
	}
	return sent, kept, nil
}

// one sends a file and removes it when it is taken; done is false for one that is left for later, or gone.
func (w *sweeper) one(ctx context.Context, root *os.Root, name string) (done bool, err error) {
	info, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil // another sweep was faster
	case err != nil:
		return false, err
	case !info.Mode().IsRegular():
		return false, errors.New("no regular file")
	case time.Since(info.ModTime()) < w.age:
		return false, nil
	case info.Size() > ingest.BodyLimit:
		return false, errors.New("too large")
	}
	body, err := root.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	}
	// FreeSWITCH ends a file with a line break and a post without: so the same record is the same document.
	body = bytes.TrimRight(body, "\r\n")
	if len(body) == 0 {
		return false, errors.New("empty")
	}
	if err := w.post(ctx, name, body); err != nil {
		return false, err
	}
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return true, nil
}

func (w *sweeper) post(ctx context.Context, name string, body []byte) error {
	leg := strings.TrimSuffix(strings.TrimPrefix(name, "a_"), ".cdr.json")
	if strings.Trim(leg, "0123456789abcdef-") != "" {
		leg = ""
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+"?uuid="+leg, bytes.NewReader(body)) //nolint:gosec // the operator names the address
	if err != nil {
		return err
	}
	req.SetBasicAuth(w.user, w.password)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(ingest.HeaderFile, strings.ToValidUTF8(strings.Map(printable, name), "?"))
	resp, err := w.client.Do(req) //nolint:gosec // see above
	if err != nil {
		return fmt.Errorf("%w: %w", errAway, err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		return fmt.Errorf("refused: %s", resp.Status)
	default:
		return fmt.Errorf("%w: %s", errAway, resp.Status)
	}
}

// printable makes the name of a file fit for a header.
func printable(r rune) rune {
	if r < ' ' || r > '~' {
		return '?'
	}
	return r
}
