// Package migrations holds the steps that build the database schema, embedded in the binaries. Together they make what
// schema.sql says; a test of package postgres compares the two.
package migrations

import "embed"

// Files are the goose migrations, in order of their number.
//
//go:embed *.sql
var Files embed.FS
