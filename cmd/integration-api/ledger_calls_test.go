package main

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
)

// customer is a tenant that calls, its realm and the first of its thousand numbers, without the plus sign.
type customer struct {
	id          uuid.UUID
	slug, realm string
	did         int
}

// document is what a switch posts of a channel.
type document struct {
	leg  cdr.Leg
	body []byte
}

// call is a call that nobody made: its documents, and the record that they are to become.
type call struct {
	documents []document
	want      cdr.Call
}

// shape is the captured documents of a call, as texts, and the UUID of its calling channel.
type shape struct {
	root  uuid.UUID
	texts []string
}

// capturedShapes returns the captured calls.
func capturedShapes(t *testing.T) (shapes []shape) {
	t.Helper()
	files, err := filepath.Glob("../../cdr/testdata/captured/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captured documents: %v", err)
	}
	parents, texts := map[uuid.UUID]uuid.UUID{}, map[uuid.UUID]string{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d, err := cdr.Parse(b)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		parents[d.Leg().ID], texts[d.Leg().ID] = d.Leg().Parent, string(b)
	}
	calls := map[uuid.UUID][]string{}
	for id := range parents {
		root := id
		for parents[root] != uuid.Nil {
			root = parents[root]
		}
		calls[root] = append(calls[root], texts[id])
	}
	for root, list := range calls {
		shapes = append(shapes, shape{root, list})
	}
	return shapes
}

// What the captured calls have in common.
const (
	capturedTenant = "890d6828-8750-4a75-96f0-506b1976e35d"
	capturedRealm  = "tenant-a.example"
	// capturedAt is when the last one was made, in seconds since 1970.
	capturedAt = 1795226042
)

// own are the parts of captured documents that belong to one call: identifiers, and times in seconds or microseconds.
var own = regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b|\b1795[0-9]{6}(?:[0-9]{6})?\b`)

// another makes another call of a shape: all identifiers, times and numbers are its own.
func (s shape) another(t *testing.T, random *rand.Rand, of customer) call {
	t.Helper()
	name := uuid.UUID{}
	for i := range name {
		name[i] = byte(random.UintN(256))
	}
	later := int(time.Now().Unix()) - capturedAt - random.IntN(20*24*3600)
	numbers := strings.NewReplacer(
		capturedRealm, of.realm,
		// Of a carrier that is not known: only the number tells whose call it is.
		"0699999999", fmt.Sprintf("+%d", of.did+random.IntN(1000)),
		"3331234567", strconv.Itoa(3330000000+random.IntN(10000000)),
		"255551234", strconv.Itoa(250000000+random.IntN(10000000)),
		"612345678", strconv.Itoa(610000000+random.IntN(10000000)),
		"612345600", strconv.Itoa(610000000+random.IntN(10000000)),
		`"1000"`, `"`+strconv.Itoa(2000+random.IntN(1000))+`"`,
		`"1001"`, `"`+strconv.Itoa(3000+random.IntN(1000))+`"`,
		`"1002"`, `"`+strconv.Itoa(4000+random.IntN(1000))+`"`,
	)
	replace := func(part string) string {
		switch {
		case part == capturedTenant:
			return of.id.String()
		case len(part) == len(capturedTenant):
			return uuid.NewSHA1(name, []byte(part)).String()
		}
		n, err := strconv.Atoi(part)
		if err != nil {
			t.Fatal(err)
		}
		if len(part) == len("1795222382") {
			return strconv.Itoa(n + later)
		}
		return strconv.Itoa(n + later*1e6)
	}
	var c call
	var legs []cdr.Leg
	for _, text := range s.texts {
		text = own.ReplaceAllStringFunc(numbers.Replace(text), replace)
		d, err := cdr.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		legs = append(legs, d.Leg())
		c.documents = append(c.documents, document{d.Leg(), encoded(random, text)})
	}
	c.want = cdr.Join(uuid.NewSHA1(name, []byte(s.root.String())), legs)
	c.want.TenantID = of.id
	return c
}

// encoded returns a document in one of the forms in which mod_json_cdr posts.
func encoded(random *rand.Rand, text string) []byte {
	switch random.IntN(10) {
	case 0:
		return []byte("cdr=" + url.PathEscape(text))
	case 1:
		return []byte("cdr=" + base64.StdEncoding.EncodeToString([]byte(text)))
	}
	return []byte(text)
}

// makeCalls makes calls of all shapes that have so many documents together, and returns them with their documents, those of
// one call near each other but in no order.
func makeCalls(t *testing.T, random *rand.Rand, customers []customer, documents int) (calls []call, all []document) {
	t.Helper()
	shapes := capturedShapes(t)
	for n := 0; len(all) < documents; n++ {
		s := shapes[n%len(shapes)]
		if len(all)+len(s.texts) > documents {
			continue // there are calls of one document
		}
		c := s.another(t, random, customers[random.IntN(len(customers))])
		calls, all = append(calls, c), append(all, c.documents...)
	}
	const near = 100
	for i := 0; i < len(all); i += near {
		part := all[i:min(i+near, len(all))]
		random.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
	}
	return calls, all
}
