package main

import (
	"fmt"
	"strconv"

	"github.com/google/uuid"
)

// The shape of a population: tenants of perTenant extensions from firstExtension, one domain and one trunk each, and a
// DID for each extension. All names have the same length at every size, so that documents have too.
const (
	perTenant      = 100
	firstExtension = 1000
	maxExtensions  = 10_000_000

	// Numbers of Rome, +39 06 1ttttt nn: t the tenant, n the extension.
	firstDID = 390_610_000_000
	// +39 333 nnnnnnn are mobile numbers.
	firstPublic = 393_330_000_000
	publics     = 10_000_000
)

// population says who is in a database of a number of extensions. Nothing of it is stored: every name, number and id
// follows from the index of an extension or a tenant.
type population struct{ extensions int }

func (p population) tenants() int { return p.extensions / perTenant }

// tenantOf returns the tenant of an extension, both by index.
func tenantOf(extension int) int { return extension / perTenant }

func slug(tenant int) string { return fmt.Sprintf("tenant-%05d", tenant) }

func realm(tenant int) string { return slug(tenant) + ".example" }

// number is what an extension is dialled by and what its phone logs in with.
func number(extension int) string { return strconv.Itoa(firstExtension + extension%perTenant) }

// neighbour returns another extension of the same tenant, chosen by n.
func neighbour(extension int, n uint64) int {
	first := extension - extension%perTenant
	return first + (extension%perTenant+1+int(n%(perTenant-1)))%perTenant
}

func password(extension int) string { return "pw" + number(extension) }

// did is the number of a DID, without the plus sign.
func did(extension int) int64 { return firstDID + int64(extension) }

// public is the nth number of the public network that is called, without the plus sign.
func public(n uint64) string { return strconv.FormatUint(firstPublic+n%publics, 10) }

// nobodysNumber is the nth number, in national form, that is nobody's DID: +39 06 2nnnnnnn, in no order.
func nobodysNumber(n int) string { return fmt.Sprintf("062%07d", n*scatter%1e7) }

func tenantID(tenant int) uuid.UUID       { return id("tenant", tenant) }
func domainID(tenant int) uuid.UUID       { return id("domain", tenant) }
func trunkID(tenant int) uuid.UUID        { return id("trunk", tenant) }
func extensionID(extension int) uuid.UUID { return id("extension", extension) }

func id(kind string, n int) uuid.UUID {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte("edgvoip load "+kind+" "+strconv.Itoa(n)))
}

// scatter is a prime above maxExtensions.
const scatter = 10_000_019

// nth returns the extension that is the nth of those asked for: neighbours in that order are of different tenants, and
// the first few are spread over all.
func (p population) nth(n int) int { return n % p.extensions * scatter % p.extensions }
