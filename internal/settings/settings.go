// Package settings reads the settings of a process from its environment. The struct of each process says what they are,
// docs/settings.md what they mean. No error shows a value, which may be a secret.
package settings

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/caarlos0/env/v11"
)

// Common are the settings that every process has. The role of the database is not here, as each process has its own.
type Common struct {
	DatabaseURL      string `env:"DATABASE_URL"`
	DatabaseMaxConns int    `env:"DATABASE_MAX_CONNS" envDefault:"10"`
	SecretKeysFile   string `env:"SECRET_KEYS_FILE"`
	LogFormat        string `env:"LOG_FORMAT" envDefault:"auto"`
	LogLevel         string `env:"LOG_LEVEL" envDefault:"info"`
}

// Check checks what every process needs. The error names the setting that is wrong.
func (c Common) Check() error {
	switch {
	case c.DatabaseURL == "":
		return errors.New("DATABASE_URL is not set")
	case c.DatabaseMaxConns < 1 || c.DatabaseMaxConns > 1000:
		return errors.New("DATABASE_MAX_CONNS is not between 1 and 1000")
	}
	return nil
}

// CheckKeys checks what a process needs that seals or opens secrets.
func (c Common) CheckKeys() error {
	if c.SecretKeysFile == "" {
		return errors.New("SECRET_KEYS_FILE is not set: make one with integration-api keygen")
	}
	return nil
}

// Parse reads a struct with env tags from an environment, given as KEY=value. A variable that is set and empty has its
// default like one that is not set, but for a text with the tag empty:"stays". The error names the settings that cannot
// be read.
func Parse[T any](environ []string) (T, error) {
	given := env.ToMap(environ)
	s, err := env.ParseAsWithOptions[T](env.Options{Environment: given})
	if err == nil {
		for _, f := range reflect.VisibleFields(reflect.TypeFor[T]()) {
			if value, set := given[f.Tag.Get("env")]; set && value == "" && f.Tag.Get("empty") == "stays" {
				reflect.ValueOf(&s).Elem().FieldByIndex(f.Index).SetString("")
			}
		}
		return s, nil
	}
	// The library's own error would repeat the values.
	var all env.AggregateError
	if !errors.As(err, &all) {
		return s, errors.New("a setting cannot be read")
	}
	var names []string
	for _, e := range all.Errors {
		if p, ok := errors.AsType[env.ParseError](e); ok {
			names = append(names, fmt.Sprintf("%s is not a %s", variable[T](p.Name), kind(p.Type)))
		}
	}
	return s, errors.New(strings.Join(names, "; "))
}

// variable returns the environment variable of a field.
func variable[T any](field string) string {
	if f, ok := reflect.TypeFor[T]().FieldByName(field); ok {
		return f.Tag.Get("env")
	}
	return field
}

// kind names a type for somebody who does not read Go.
func kind(t reflect.Type) string {
	switch t.String() {
	case "int":
		return "number"
	case "bool":
		return "boolean: true or false"
	case "time.Duration":
		return "duration: a number with a unit, such as 1500ms"
	default:
		return t.String()
	}
}
