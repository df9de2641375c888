package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/edgvoip/edgvoip/aisession"
	"github.com/edgvoip/edgvoip/test/w3receiver"
)

// receiveOptions are the flags of receive.
type receiveOptions struct {
	addr, cert, key, state, secrets string
	gateway                         *url.URL // nil for none
	behaviour                       w3receiver.Behaviour
}

func parseReceive(args []string, stderr io.Writer) (o receiveOptions, err error) {
	flags := flag.NewFlagSet("mockw3 receive", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.addr, "addr", "127.0.0.1:8444", "where to listen")
	flags.StringVar(&o.cert, "cert", "", "certificate chain, as a PEM file; plain HTTP if not given")
	flags.StringVar(&o.key, "key", "", "its key")
	flags.StringVar(&o.state, "state", "", "file that keeps what was taken, also when the process is killed; mandatory")
	flags.StringVar(&o.secrets, "secrets", "", "file with the tenants' signing secrets, one a line; mandatory")
	flags.Func("gateway", "where a voice gateway (test/mockgateway) is asked for AI sessions, as http://host:port; none if not given", o.setGateway)
	flags.IntVar(&o.behaviour.DelayMillis, "delay", 0, "milliseconds that each request waits")
	flags.IntVar(&o.behaviour.FailPercent, "fail", 0, "percent of the requests that are answered 500")
	flags.IntVar(&o.behaviour.DropPercent, "drop", 0, "percent of the events that are taken and not answered")
	flags.IntVar(&o.behaviour.LiePercent, "lie", 0, "percent of the events that are taken and answered 500")
	flags.StringVar(&o.behaviour.RetryAfter, "retry-after", "", "answer 429 with this Retry-After")
	flags.BoolVar(&o.behaviour.Hang, "hang", false, "answer nothing")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		return o, errors.New("receive takes no arguments but options")
	case o.state == "" || o.secrets == "":
		return o, errors.New("-state and -secrets are mandatory")
	case (o.cert == "") != (o.key == ""):
		return o, errors.New("-cert and -key go together")
	}
	return o, nil
}

func (o *receiveOptions) setGateway(text string) (err error) {
	if o.gateway, err = url.Parse(text); err != nil || o.gateway.Host == "" || o.gateway.Scheme != "http" && o.gateway.Scheme != "https" {
		return errors.New("not of the form http://host:port")
	}
	return nil
}

// receive takes webhooks until ctx ends. It prints where it listens, and at the end its report, on stdout.
func receive(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parseReceive(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	secrets, err := readSecrets(o.secrets)
	if err != nil {
		return err
	}
	receiver, err := w3receiver.New(w3receiver.Options{Secrets: secrets, State: o.state})
	if err != nil {
		return fmt.Errorf("-state: %w", err)
	}
	receiver.Behave(o.behaviour)
	err = listen(ctx, o, receiver, stdout)
	return errors.Join(err, json.NewEncoder(stdout).Encode(receiver.Report()), receiver.Close())
}

func listen(ctx context.Context, o receiveOptions, receiver *w3receiver.Receiver, stdout io.Writer) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.addr)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(stdout, "listening on", l.Addr()); err != nil {
		return errors.Join(err, l.Close())
	}
	server := &http.Server{Handler: controlled(receiver, o.gateway), ReadHeaderTimeout: patience}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if o.cert != "" {
		err = server.ServeTLS(l, o.cert, o.key)
	} else {
		err = server.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// controlled puts beside a receiver what it is controlled by: GET /mock/report, and PUT /mock/behaviour with the JSON
// of a w3receiver.Behaviour. W3's voice gateway is under the same base URL as its webhooks: requests for sessions are
// forwarded to gateway, as they are, if there is one.
func controlled(receiver *w3receiver.Receiver, gateway *url.URL) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", receiver)
	if gateway != nil {
		mux.Handle("POST "+aisession.SessionPath, &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(gateway) }})
	}
	mux.HandleFunc("GET /mock/report", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(receiver.Report()) // whoever asked has gone
	})
	mux.HandleFunc("PUT /mock/behaviour", func(w http.ResponseWriter, r *http.Request) {
		var b w3receiver.Behaviour
		d := json.NewDecoder(io.LimitReader(r.Body, 1<<16))
		d.DisallowUnknownFields()
		if err := d.Decode(&b); err != nil {
			http.Error(w, "not a behaviour", http.StatusBadRequest)
			return
		}
		receiver.Behave(b)
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

// patience is how long an answer, or a request, may take.
const patience = 15 * time.Second

// readSecrets reads a file of secrets. No error repeats what is in it.
func readSecrets(file string) ([]string, error) {
	b, err := os.ReadFile(file) //nolint:gosec // the caller's own
	if err != nil {
		return nil, fmt.Errorf("-secrets: %w", err)
	}
	secrets := strings.Fields(string(b))
	if len(secrets) == 0 {
		return nil, errors.New("-secrets: there is no secret in it")
	}
	return secrets, nil
}
