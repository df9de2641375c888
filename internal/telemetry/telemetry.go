// Package telemetry sets up what an operator sees of a process: structured logs with a correlation id on every line,
// and a metrics registry.
package telemetry

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Formats of log lines.
const (
	FormatAuto = "auto" // text on a terminal, JSON otherwise
	FormatText = "text"
	FormatJSON = "json"
)

// NewLogger returns a logger that writes to w and adds the correlation id that a context carries. level is debug, info,
// warn or error; the error says what is wrong with an argument.
func NewLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, errors.New("LOG_LEVEL is one of debug, info, warn, error")
	}
	if format == FormatAuto {
		format = FormatJSON
		if f, ok := w.(*os.File); ok && isTerminal(f) {
			format = FormatText
		}
	}
	var h slog.Handler
	switch format {
	case FormatText:
		h = tint.NewTextHandler(w, &tint.Options{Level: l, TimeFormat: time.TimeOnly + ".000"})
	case FormatJSON:
		h = slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l})
	default:
		return nil, errors.New("LOG_FORMAT is one of auto, text, json")
	}
	return slog.New(correlated{h}), nil
}

func isTerminal(f *os.File) bool {
	s, err := f.Stat()
	return err == nil && s.Mode()&os.ModeCharDevice != 0
}

type correlationKey struct{}

// WithCorrelation returns a context whose log lines carry an id.
func WithCorrelation(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, correlationKey{}, id)
}

// Correlation returns the id that a context carries, or nothing.
func Correlation(ctx context.Context) string {
	id, _ := ctx.Value(correlationKey{}).(string)
	return id
}

// correlated adds the correlation id of the context to each record.
type correlated struct{ slog.Handler }

func (h correlated) Handle(ctx context.Context, r slog.Record) error {
	if id := Correlation(ctx); id != "" {
		r.AddAttrs(slog.String("correlation_id", id))
	}
	return h.Handler.Handle(ctx, r)
}

func (h correlated) WithAttrs(a []slog.Attr) slog.Handler {
	return correlated{h.Handler.WithAttrs(a)}
}

func (h correlated) WithGroup(name string) slog.Handler {
	return correlated{h.Handler.WithGroup(name)}
}

// NewRegistry returns a registry with the metrics of the process and the Go runtime.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}
