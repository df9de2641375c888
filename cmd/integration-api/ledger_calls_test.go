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

// shape is the captured documents of a call, each in parts of which every second one is to be another in another call,
// and the UUID of its calling channel.
type shape struct {
	root      uuid.UUID
	documents [][]string
}

// capturedShapes returns the captured calls.
func capturedShapes(t *testing.T) (shapes []shape) {
	t.Helper()
	files, err := filepath.Glob("../../cdr/testdata/captured/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captured documents: %v", err)
	}
	parents, parts := map[uuid.UUID]uuid.UUID{}, map[uuid.UUID][]string{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d, err := cdr.Parse(b)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		parents[d.Leg().ID], parts[d.Leg().ID] = d.Leg().Parent, split(string(b))
	}
	calls := map[uuid.UUID][][]string{}
	for id := range parents {
		root := id
		for parents[root] != uuid.Nil {
			root = parents[root]
		}
		calls[root] = append(calls[root], parts[id])
	}
	for root, documents := range calls {
		shapes = append(shapes, shape{root, documents})
	}
	return shapes
}

func split(text string) (parts []string) {
	end := 0
	for _, at := range own.FindAllStringIndex(text, -1) {
		parts = append(parts, text[end:at[0]], text[at[0]:at[1]])
		end = at[1]
	}
	return append(parts, text[end:])
}

// What the captured calls have in common.
const (
	capturedTenant = "890d6828-8750-4a75-96f0-506b1976e35d"
	capturedRealm  = "tenant-a.example"
	// capturedAt is when the last one was made, in seconds since 1970.
	capturedAt = 1795226042
)

// own are the parts of captured documents that belong to one call: identifiers, times in seconds or microseconds, the
// realm, numbers of the public network without what may come before them, and extensions.
var own = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b1795[0-9]{6}(?:[0-9]{6})?\b|` +
	regexp.QuoteMeta(capturedRealm) + `|0699999999|3331234567|255551234|612345678|612345600|"100[0-5]"`)

// another makes another call of a shape: all identifiers, times and numbers are its own.
func (s shape) another(t *testing.T, random *rand.Rand, of customer) call {
	t.Helper()
	var name uuid.UUID
	for i := range name {
		name[i] = byte(random.UintN(256))
	}
	later := int(time.Now().Unix()) - capturedAt - random.IntN(20*24*3600)
	known := map[string]string{
		capturedTenant: of.id.String(), capturedRealm: of.realm,
		// Of a carrier that is not known: only the number tells whose call it is.
		"0699999999": fmt.Sprintf("+%d", of.did+random.IntN(1000)),
	}
	var c call
	var legs []cdr.Leg
	for _, parts := range s.documents {
		var text strings.Builder
		for i, part := range parts {
			if i%2 == 1 {
				if _, ok := known[part]; !ok {
					known[part] = other(random, name, later, part)
				}
				part = known[part]
			}
			text.WriteString(part)
		}
		d, err := cdr.Parse([]byte(text.String()))
		if err != nil {
			t.Fatal(err)
		}
		legs = append(legs, d.Leg())
		c.documents = append(c.documents, document{d.Leg(), encoded(random, text.String())})
	}
	c.want = cdr.Join(uuid.NewSHA1(name, []byte(s.root.String())), legs)
	c.want.TenantID = of.id
	return c
}

// other returns what stands for an own part in a call of a name that is made so many seconds later.
func other(random *rand.Rand, name uuid.UUID, later int, part string) string {
	n, err := strconv.Atoi(part)
	switch {
	case strings.HasPrefix(part, `"`):
		return fmt.Sprintf(`"%d"`, 1000+random.IntN(9000))
	case err != nil:
		return uuid.NewSHA1(name, []byte(part)).String()
	case len(part) == len("1795222382199657"):
		return strconv.Itoa(n + later*1e6)
	case strings.HasPrefix(part, "1795"):
		return strconv.Itoa(n + later)
	}
	return part[:3] + fmt.Sprintf("%0*d", len(part)-3, random.IntN(1000000))
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

// makeCalls makes calls of all shapes that have so many documents together. It returns them with their documents, those
// of one call near each other but in no order, but for those that are held back: of some calls, by their id, that of a
// called leg.
func makeCalls(t *testing.T, random *rand.Rand, customers []customer, documents int) (calls []call, all []document, held map[uuid.UUID]document) {
	t.Helper()
	shapes := capturedShapes(t)
	held = map[uuid.UUID]document{}
	for n, made := 0, 0; made < documents; n++ {
		s := shapes[n%len(shapes)]
		if made+len(s.documents) > documents {
			continue // there are calls of one document
		}
		c := s.another(t, random, customers[random.IntN(len(customers))])
		calls, made = append(calls, c), made+len(c.documents)
		hold := random.IntN(4) == 0
		for _, d := range c.documents {
			if hold && !d.leg.IsCalling() {
				held[c.want.ID], hold = d, false
				continue
			}
			all = append(all, d)
		}
	}
	const near = 100
	for i := 0; i < len(all); i += near {
		part := all[i:min(i+near, len(all))]
		random.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
	}
	return calls, all, held
}
