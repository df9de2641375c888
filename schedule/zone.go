package schedule

import (
	"archive/zip"
	"bytes"
	_ "embed" // for zoneArchive
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// zoneArchive is Go's own lib/time/zoneinfo.zip; `make zones` takes that of the Go in use. Package time would ask the
// machine first and an archive that is compiled in (time/tzdata) second: two machines could then decide one call
// differently, and names be taken on one that another does not know.
//
//go:embed zoneinfo.zip
var zoneArchive []byte

// ErrZone means that a text names no zone.
var ErrZone = errors.New("is not an IANA time zone, like Europe/Rome")

// zones holds the locations of the names that were asked for.
var zones sync.Map // of name to *time.Location

// zoneFiles returns the files of the archive by name.
var zoneFiles = sync.OnceValue(func() map[string]*zip.File {
	archive, err := zip.NewReader(bytes.NewReader(zoneArchive), int64(len(zoneArchive)))
	if err != nil {
		panic(fmt.Sprintf("time zones: %v", err)) // they are compiled in
	}
	files := map[string]*zip.File{}
	for _, f := range archive.File {
		// Factory is for machines of which nobody has said where they are.
		if !strings.HasSuffix(f.Name, "/") && f.Name != "Factory" {
			files[f.Name] = f
		}
	}
	return files
})

// LoadZone returns the zone of an IANA name, from the data that is compiled in: the same on every machine. Error:
// ErrZone.
func LoadZone(name string) (*time.Location, error) {
	if l, ok := zones.Load(name); ok {
		return l.(*time.Location), nil //nolint:forcetypeassert // nothing else is put there
	}
	file, ok := zoneFiles()[name]
	if !ok {
		return nil, ErrZone
	}
	l, err := readZone(file)
	if err != nil {
		return nil, fmt.Errorf("time zone that is compiled in: %w", err)
	}
	kept, _ := zones.LoadOrStore(file.Name, l)
	return kept.(*time.Location), nil //nolint:forcetypeassert // nothing else is put there
}

func readZone(file *zip.File) (*time.Location, error) {
	f, err := file.Open()
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return time.LoadLocationFromTZData(file.Name, data)
}
