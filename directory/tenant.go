package directory

import (
	"errors"
	"strings"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/invalid"
	"github.com/edgvoip/edgvoip/numbering"
	"github.com/edgvoip/edgvoip/schedule"
)

// Conflicts that ending a domain or a tenant can meet.
var (
	// ErrDomainInUse means that a domain has extensions that are not deleted.
	ErrDomainInUse = errors.New("the domain has extensions")
	// ErrTenantActive means that a tenant was not suspended before it was to be deleted.
	ErrTenantActive = errors.New("the tenant is not suspended")
)

// TenantDiffersError means that there is a tenant of that slug that is not as it is asked for.
type TenantDiffersError struct {
	// Fields are the names of those that differ.
	Fields []string
}

func (e *TenantDiffersError) Error() string {
	return "the tenant exists, with another " + strings.Join(e.Fields, ", ")
}

// differs compares what is given of a tenant with what is stored. Error: *TenantDiffersError.
func (s TenantSpec) differs(wanted, stored TenantRecord) error {
	var fields []string
	for _, f := range []struct {
		name      string
		different bool
	}{
		{"name", s.Name != "" && wanted.Name != stored.Name},
		{"country", wanted.Country != stored.Country},
		{"timezone", s.Timezone != "" && wanted.Timezone != stored.Timezone},
	} {
		if f.different {
			fields = append(fields, f.name)
		}
	}
	if fields == nil {
		return nil
	}
	return &TenantDiffersError{fields}
}

// TenantPatch is a change of a tenant as it is asked for. A nil field stays as it is.
type TenantPatch struct {
	Name     *string
	Country  *string // ISO 3166-1 alpha-2
	Timezone *string // IANA
	Active   *bool
}

// TenantChange is a change of a tenant that can be written. A nil field stays as it is.
type TenantChange struct {
	Name     *fstext.DisplayName
	Country  *numbering.Country
	Timezone *string
	Active   *bool
}

// Change checks a change. Error: *invalid.FieldError.
func (p TenantPatch) Change() (TenantChange, error) {
	c := TenantChange{Timezone: p.Timezone, Active: p.Active}
	if p.Name != nil {
		name, err := fstext.NewDisplayName(*p.Name)
		if err != nil {
			return c, invalid.Because("name", err)
		}
		c.Name = &name
	}
	if p.Country != nil {
		country, err := numbering.NewCountry(*p.Country)
		if err != nil {
			return c, invalid.Because("country", err)
		}
		c.Country = &country
	}
	if p.Timezone != nil {
		return c, checkTimezone(*p.Timezone)
	}
	return c, nil
}

// Apply returns the tenant as it is after the change.
func (c TenantChange) Apply(t TenantRecord) TenantRecord {
	set(&t.Name, c.Name)
	set(&t.Country, c.Country)
	set(&t.Timezone, c.Timezone)
	set(&t.Active, c.Active)
	return t
}

func checkTimezone(name string) error {
	if _, err := schedule.LoadZone(name); err != nil {
		return &invalid.FieldError{Name: "timezone", Reason: "not the name of an IANA time zone"}
	}
	return nil
}
