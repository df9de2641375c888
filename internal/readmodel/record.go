package readmodel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/secret"
)

// record is an extension in one piece of memory that the garbage collector need not look into: a million of them are a
// million pieces. Its domain is not in it. Credentials are sealed in it as they are in the database.
//
// Layout: 16 bytes of id; a byte of flags; calls at once as a varint; then, each after its length as a varint: number,
// username, name, caller id, transport, codecs, key id, sealed MD5 A1, sealed SHA-256 A1.
type record string

const flagActive = 1

// recordFields is the number of texts in a record.
const recordFields = 9

func pack(e directory.Extension) record {
	fields := [recordFields]string{
		e.Number.String(), e.Username.String(), e.Name.String(), e.CallerID.String(), string(e.Transport), e.Codecs.Text().String(),
		e.HA1MD5.KeyID, string(e.HA1MD5.Data), string(e.HA1SHA256.Data),
	}
	size := len(e.ID) + 1 + 2*binary.MaxVarintLen32
	for _, f := range fields {
		size += len(f) + 2
	}
	b := make([]byte, 0, size)
	b = append(b, e.ID[:]...)
	flags := byte(0)
	if e.Active {
		flags |= flagActive
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(max(0, e.MaxCalls)))
	for _, f := range fields {
		b = binary.AppendUvarint(b, uint64(len(f)))
		b = append(b, f...)
	}
	return record(b)
}

var errRecord = errors.New("record of an extension is damaged")

// unpacked is a record taken apart, without copying.
type unpacked struct {
	id       uuid.UUID
	active   bool
	maxCalls int
	fields   [recordFields]string
}

func (r record) unpack() (unpacked, error) {
	var u unpacked
	rest := string(r)
	if len(rest) < len(u.id)+1 {
		return u, errRecord
	}
	copy(u.id[:], rest)
	u.active = rest[len(u.id)]&flagActive != 0
	rest = rest[len(u.id)+1:]
	n, rest, ok := cutNumber(rest)
	u.maxCalls = n
	for i := 0; ok && i < recordFields; i++ {
		if n, rest, ok = cutNumber(rest); ok && n <= len(rest) {
			u.fields[i], rest = rest[:n], rest[n:]
		} else {
			ok = false
		}
	}
	if !ok || rest != "" {
		return u, errRecord
	}
	return u, nil
}

// cutNumber takes a varint off the beginning of a text.
func cutNumber(s string) (n int, rest string, ok bool) {
	var v uint64
	for i := 0; i < len(s) && i < binary.MaxVarintLen32; i++ {
		v |= uint64(s[i]&0x7f) << (7 * i)
		if s[i] < 0x80 {
			return int(v), s[i+1:], true //nolint:gosec // at most 35 bits
		}
	}
	return 0, "", false
}

// names returns the names that the extension answers to, in lower case.
func (r record) names() []string {
	u, err := r.unpack()
	if err != nil {
		return nil
	}
	number, username := u.fields[0], strings.ToLower(u.fields[1])
	if number == username {
		return []string{number}
	}
	return []string{number, username}
}

// extension returns the extension, which belongs to a domain. Every text passes its constructor again.
func (r record) extension(d directory.Domain) (directory.Extension, error) {
	u, err := r.unpack()
	if err != nil {
		return directory.Extension{}, err
	}
	f := &u.fields
	e := directory.Extension{
		ID: u.id, TenantID: d.Tenant.ID, DomainID: d.ID, Realm: d.Realm, MaxCalls: u.maxCalls, Active: u.active,
		HA1MD5:    secret.Sealed{KeyID: f[6], Data: []byte(f[7])},
		HA1SHA256: secret.Sealed{KeyID: f[6], Data: []byte(f[8])},
	}
	var errs [6]error
	e.Number, errs[0] = fstext.NewExtension(f[0])
	e.Username, errs[1] = fstext.NewUsername(f[1])
	e.Name, errs[2] = fstext.NewDisplayName(f[2])
	if f[3] != "" {
		e.CallerID, errs[3] = fstext.NewE164(f[3])
	}
	e.Transport, errs[4] = directory.ParseTransport(f[4])
	e.Codecs, errs[5] = codecs(f[5])
	if err := errors.Join(errs[:]...); err != nil {
		return directory.Extension{}, fmt.Errorf("extension %s: %w", e.ID, err)
	}
	return e, nil
}

// codecLists keeps each list of codecs once: there are few, and reading one costs more than the rest of a record.
var codecLists sync.Map // of text to fstext.Codecs

func codecs(list string) (fstext.Codecs, error) {
	if c, ok := codecLists.Load(list); ok {
		return c.(fstext.Codecs), nil //nolint:forcetypeassert // nothing else is put there
	}
	c, err := fstext.NewCodecs(strings.Split(list, ","))
	if err == nil {
		codecLists.Store(strings.Clone(list), c)
	}
	return c, err
}
