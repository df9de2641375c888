package api_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/api"
	"github.com/edgvoip/edgvoip/internal/records"
	"github.com/edgvoip/edgvoip/internal/testdb"
)

// Every operation of the document that names a thing is told of another tenant's what it is told of nobody's: the same
// answer, after the same questions to the database, which is what its time is made of. And nothing changes.
func TestCrossTenantMatrix(t *testing.T) {
	t.Parallel()
	wire, dsn := newWire(t, testdb.New(t))
	dir := t.TempDir()
	files, err := records.OpenFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = files.Close() }()
	s := startOn(t, dsn, func(o *api.Options) { o.Recordings, o.PublicURL = files, "https://api.example" })
	shop, mall := s.carrier(t, "shop"), s.tenant(t, "mall")
	extension, extensionGone := shop.w.post(t, shop.w.spec("1001")).id(t), shop.w.post(t, shop.w.spec("1002")).id(t)
	shop.w.do(t, http.MethodPut, "/extensions/"+extension+"/stores", `{"storeIds":["`+uuid.NewString()+`"]}`)
	shop.w.do(t, http.MethodDelete, "/extensions/"+extensionGone, "")
	shop.create(t, fullTrunk())
	trunkGone := uuid.NewString()
	shop.create(t, leastTrunk("trunkId", trunkGone, "host", "192.0.2.1"))
	shop.do(t, http.MethodDelete, shop.path()+"/"+trunkGone, "")
	call, callPlain := shop.w.recorded(t, dir, "sound").String(), shop.w.call(t, 90, "1001", "1002").String()

	extensions, trunks, calls := []string{extension, extensionGone}, []string{trunkID, trunkGone}, []string{call, callPlain}
	matrix := map[string]struct {
		theirs []string // what the path's parameter may name
		bodies []string
	}{
		"GET /extensions/{id}":             {extensions, []string{""}},
		"PATCH /extensions/{id}":           {extensions, []string{`{"status":"suspended"}`, `{"sipPassword":"stolen password"}`, `{}`}},
		"DELETE /extensions/{id}":          {extensions, []string{""}},
		"GET /extensions/{id}/stores":      {extensions, []string{""}},
		"PUT /extensions/{id}/stores":      {extensions, []string{`{"storeIds":[]}`, `{"storeIds":["` + uuid.NewString() + `"]}`}},
		"GET /extensions/{id}/convergence": {extensions, []string{""}},
		"GET /trunks/{id}":                 {trunks, []string{""}},
		"GET /cdrs/{callId}":               {calls, []string{""}},
		"GET /cdrs/{callId}/recording":     {calls, []string{""}},
	}
	for path, methods := range operations(t, s, api.BasePath) {
		for _, method := range methods {
			name := method + " " + strings.TrimPrefix(path, api.BasePath)
			if _, ok := matrix[name]; !ok && parameter.MatchString(path) {
				t.Errorf("%s is not in the matrix", name)
			}
		}
	}
	state := trunkRows(t, s)
	for name, row := range matrix {
		method, path, _ := strings.Cut(name, " ")
		ask := func(w w3, id, body string, header ...string) (string, []string) {
			wire.heard()
			seen := face(w.do(t, method, parameter.ReplaceAllString(path, id), body, header...))
			return seen, wire.heard()
		}
		for _, body := range row.bodies {
			for _, header := range [][]string{nil, {"Idempotency-Key", "order-1"}} {
				nobody, asked := ask(mall, uuid.NewString(), body, header...)
				if !strings.HasPrefix(nobody, "Not Found\n") || len(asked) < 2 {
					t.Errorf("%s of nobody, after %q:\n%s", name, asked, nobody)
				}
				for _, theirs := range row.theirs {
					for _, id := range []string{theirs, strings.ToUpper(theirs)} {
						got, questions := ask(mall, id, body, header...)
						if got != nobody {
							t.Errorf("%s %s of another tenant:\n%s\nand of nobody:\n%s", name, body, got, nobody)
						}
						if !slices.Equal(questions, asked) {
							t.Errorf("%s %s of another tenant asks the database\n%q\nand of nobody\n%q", name, body, questions, asked)
						}
					}
				}
			}
		}
	}
	if trunkRows(t, s) != state {
		t.Error("one tenant changed what is another's")
	}
	// The owner is answered: what was asked for is there.
	for name, row := range matrix {
		if method, path, _ := strings.Cut(name, " "); method == http.MethodGet {
			if a := shop.w.do(t, method, parameter.ReplaceAllString(path, row.theirs[0]), ""); a.status != http.StatusOK {
				t.Errorf("%s of the owner: %d %s", name, a.status, a.body)
			}
		}
	}
}
