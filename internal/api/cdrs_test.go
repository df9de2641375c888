package api_test

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/internal/api"
	"github.com/edgvoip/edgvoip/internal/records"
)

// startWithRecordings starts the API with a directory of recordings.
func startWithRecordings(t *testing.T) (s *scene, dir string) {
	t.Helper()
	dir = t.TempDir()
	files, err := records.OpenFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = files.Close() })
	return start(t, func(o *api.Options) { o.Recordings, o.PublicURL = files, "https://api.example" }), dir
}

// call records a call of the tenant, some seconds before now, and returns its id.
func (w w3) call(t testing.TB, secondsAgo int, from, to string, more ...string) uuid.UUID {
	t.Helper()
	id, begin := uuid.New(), time.Now().Add(-time.Duration(secondsAgo)*time.Second)
	vars := map[string]string{
		"uuid": id.String(), "edgvoip_tenant_id": w.tenant.String(), "hangup_cause": "NORMAL_CLEARING", "edgvoip_direction": "internal",
		"start_uepoch": strconv.FormatInt(begin.UnixMicro(), 10), "answer_uepoch": strconv.FormatInt(begin.UnixMicro(), 10),
		"end_uepoch": strconv.FormatInt(begin.Add(5*time.Second).UnixMicro(), 10),
	}
	for i := 0; i < len(more); i += 2 {
		vars[more[i]] = more[i+1]
	}
	body, err := json.Marshal(map[string]any{
		"channel_data": map[string]string{"direction": "inbound"}, "variables": vars,
		"callflow": []any{map[string]any{"caller_profile": map[string]string{"caller_id_number": from, "destination_number": to}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.s.store.KeepDocument(t.Context(), cdr.Posted{Source: cdr.SourcePost, Body: body}); err != nil {
		t.Fatal(err)
	}
	if n, err := w.s.store.ReadDocuments(t.Context(), 10); err != nil || n.Recorded != 1 {
		t.Fatalf("%+v %v", n, err)
	}
	return id
}

// list returns the ids of the calls that a list answers, in its order.
func (w w3) list(t testing.TB, query string) (ids []string, next string) {
	t.Helper()
	a := w.do(t, http.MethodGet, "/cdrs"+query, "")
	var p struct {
		Items []struct {
			CallID string `json:"callId"`
		} `json:"items"`
		Next string `json:"nextCursor"`
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.status != http.StatusOK {
		t.Fatalf("%s: %d %s", query, a.status, a.body)
	}
	for _, c := range p.Items {
		ids = append(ids, c.CallID)
	}
	return ids, p.Next
}

// Lists are paged, the newest first, and filtered.
func TestListCDRs(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	store, trunk := uuid.NewString(), uuid.NewString()
	if _, err := s.raw.ExecContext(t.Context(), `INSERT INTO edgvoip.sip_trunks (tenant_id, id, name, host, store_id) VALUES ($1, $2, 'Carrier', '192.0.2.1', $3)`,
		w.tenant, trunk, store); err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 7 {
		id := w.call(t, 1000+100*i, "+39333000000"+strconv.Itoa(i), "1001")
		want = append(want, id.String())
	}
	out := w.call(t, 2000, "1001", "+390612345678", "edgvoip_direction", "outbound", "answer_uepoch", "0", "hangup_cause", "USER_BUSY", "edgvoip_trunk_id", trunk)
	want = append(want, out.String())
	var got []string
	for next := ""; ; {
		ids, cursor := w.list(t, "?limit=3&cursor="+next)
		if got = append(got, ids...); cursor == "" {
			break
		}
		next = cursor
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("paged: %v, want %v", got, want)
	}
	middle := url.QueryEscape(time.Now().Add(-1350 * time.Second).UTC().Format(time.RFC3339Nano))
	for query, n := range map[string]int{
		"?direction=outbound": 1, "?direction=internal": 7, "?disposition=busy": 1, "?disposition=failed": 0, "?number=393330000003": 1,
		"?number=%2B393330000003": 1, "?number=1001": 8, "?storeId=" + store: 1, "?storeId=" + uuid.NewString(): 0, "?from=" + middle: 4, "?to=" + middle: 4,
	} {
		if ids, _ := w.list(t, query); len(ids) != n {
			t.Errorf("%s: %d calls, want %d", query, len(ids), n)
		}
	}
	for _, query := range []string{
		"?direction=up", "?disposition=x", "?from=yesterday", "?storeId=x", "?cursor=x", "?cursor=MTcwMHxh", "?from=" + middle + "&to=" + middle, "?what=1", "?number=%00",
	} {
		if a := w.do(t, http.MethodGet, "/cdrs"+query, ""); a.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
	one := w.do(t, http.MethodGet, "/cdrs/"+out.String(), "").json(t)
	legs, _ := one["legs"].([]any)
	if one["to"] != "+390612345678" || one["disposition"] != "busy" || one["storeId"] != store || len(legs) != 1 {
		t.Errorf("%v", one)
	}
}

// No tenant sees, exports, hears or erases another's calls.
func TestCDRsOfAnother(t *testing.T) {
	t.Parallel()
	s, dir := startWithRecordings(t)
	mine, other := s.tenant(t, "mine"), s.tenant(t, "other")
	id := other.recorded(t, dir, "secret sound")
	for method, paths := range map[string][]string{
		http.MethodGet: {"/cdrs/" + id.String(), "/cdrs/" + id.String() + "/recording", "/cdrs/" + uuid.NewString()},
	} {
		for _, path := range paths {
			if a := mine.do(t, method, path, ""); a.status != http.StatusNotFound || strings.Contains(a.body, id.String()) {
				t.Errorf("%s %s: %d %s", method, path, a.status, a.body)
			}
		}
	}
	if ids, _ := mine.list(t, ""); len(ids) != 0 {
		t.Errorf("listed: %v", ids)
	}
	if a := mine.do(t, http.MethodGet, "/cdrs.csv", ""); a.status != http.StatusOK || strings.Count(a.body, "\n") != 1 {
		t.Errorf("exported: %d %s", a.status, a.body)
	}
	if a := mine.do(t, http.MethodPost, "/erasures", `{"number":"+393331234567"}`); a.status != http.StatusOK || a.json(t)["calls"] != 0.0 {
		t.Errorf("erased: %d %s", a.status, a.body)
	}
	if got := other.do(t, http.MethodGet, "/cdrs/"+id.String(), "").json(t)["from"]; got != "+393331234567" {
		t.Errorf("after another's erasure: %v", got)
	}
	if a := other.do(t, http.MethodPost, "/erasures", `{"number":"+393331234567"}`); a.status != http.StatusOK || a.json(t)["calls"] != 1.0 {
		t.Errorf("erased: %d %s", a.status, a.body)
	}
	got := other.do(t, http.MethodGet, "/cdrs/"+id.String(), "").json(t)
	if got["from"] != "erased" || got["erased"] != true || got["recordingUrl"] != nil || got["recordingState"] != "removed" {
		t.Errorf("after the erasure: %v", got)
	}
	if a := other.do(t, http.MethodPost, "/erasures", `{"number":"1001"}`); a.status != http.StatusUnprocessableEntity {
		t.Errorf("erasure of no number: %d %s", a.status, a.body)
	}
	if strings.Contains(s.log.String(), "3331234567") {
		t.Error("the number is in the log")
	}
}

// An export holds every record, and nothing that a spreadsheet would compute.
func TestExport(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	evil := map[string]string{
		`=cmd|'/C calc'!A0`: `'=cmd|'/C calc'!A0`, "+1+1": "'+1+1", "-2+3": "'-2+3", "@SUM(1)": "'@SUM(1)", "1;=cmd|calc!A0": "1;'=cmd|calc!A0", ";  =1+1": ";  '=1+1", "\t=1": "'=1", `a,"b` + "\n=1": `a,"b=1`, "＝1": "'＝1",
		"+393331234567": "+393331234567", "1001": "1001", "": "",
	}
	i := 0
	for from := range evil {
		w.call(t, 100+i, from, "1002")
		i++
	}
	a := w.do(t, http.MethodGet, "/cdrs.csv", "")
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "text/csv; charset=utf-8" || !strings.Contains(a.header.Get("Content-Disposition"), "attachment") {
		t.Fatalf("%d %v", a.status, a.header)
	}
	rows, err := csv.NewReader(strings.NewReader(a.body)).ReadAll()
	if err != nil || len(rows) != len(evil)+1 || rows[0][2] != "from" {
		t.Fatalf("%v %q", err, a.body)
	}
	left := map[string]int{}
	for _, want := range evil {
		left[want]++
	}
	for _, row := range rows[1:] {
		left[row[2]]--
	}
	for text, n := range left {
		if n != 0 {
			t.Errorf("%q is there %d times too few", text, n)
		}
	}
	same := w.do(t, http.MethodGet, "/cdrs", "", "Accept", "text/csv, application/json;q=0.5")
	if same.status != http.StatusOK || same.body != a.body || same.header.Get("Content-Type") != a.header.Get("Content-Type") {
		t.Errorf("the list as CSV: %d %v %q", same.status, same.header, same.body)
	}
	if a := w.do(t, http.MethodGet, "/cdrs", "", "Accept", "application/json, text/csv"); a.json(t)["items"] == nil {
		t.Errorf("the list for who takes both: %d %q", a.status, a.body)
	}
	if a := w.do(t, http.MethodGet, "/cdrs?direction=up", "", "Accept", "text/csv"); a.status != http.StatusUnprocessableEntity || a.json(t)["code"] == nil {
		t.Errorf("a wrong filter: %d %s", a.status, a.body)
	}
	if a := w.do(t, http.MethodGet, "/cdrs.csv?number=1001", ""); strings.Count(a.body, "\n") != 2 {
		t.Errorf("filtered: %q", a.body)
	}
	if a := w.do(t, http.MethodGet, "/cdrs.csv?direction=up", ""); a.status != http.StatusUnprocessableEntity {
		t.Errorf("a wrong filter: %d %s", a.status, a.body)
	}
}

// A long export is read page by page, each record once.
func TestLongExport(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	exec(t, s, `INSERT INTO edgvoip.cdr (tenant_id, call_id, "from", "to", direction, start_time, disposition, raw)
		SELECT $1, gen_random_uuid(), '1001', n::text, 'internal', now() - make_interval(secs => n / 3), 'failed', '{}' FROM generate_series(1, 2500) AS n`, w.tenant)
	rows, err := csv.NewReader(strings.NewReader(w.do(t, http.MethodGet, "/cdrs.csv", "").body)).ReadAll()
	seen := map[string]bool{}
	for _, r := range rows {
		seen[r[3]] = true
	}
	if err != nil || len(rows) != 2501 || len(seen) != 2501 {
		t.Errorf("%d rows, %d of them different, %v", len(rows), len(seen), err)
	}
}

// recorded makes a call with a recording that is there, from +393331234567.
func (w w3) recorded(t testing.TB, dir, sound string) uuid.UUID {
	t.Helper()
	path := w.tenant.String() + "/2026/11/20/" + uuid.NewString() + ".wav"
	id := w.call(t, 50, "+393331234567", "1001", "edgvoip_recording", path)
	if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, path), []byte(sound), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := w.s.store.Recordings(t.Context(), cdr.RecordingExpected, cdr.Recording{}, 10)
	if err != nil || len(list) != 1 {
		t.Fatalf("%v %v", list, err)
	}
	if err := w.s.store.RecordingReady(t.Context(), list[0], api.RecordingURL("https://api.example", id)); err != nil {
		t.Fatal(err)
	}
	return id
}

// link returns the path of a link to a recording.
func (w w3) link(t testing.TB, call uuid.UUID) string {
	t.Helper()
	a := w.do(t, http.MethodGet, "/cdrs/"+call.String()+"/recording", "")
	link, _ := a.json(t)["url"].(string)
	path, found := strings.CutPrefix(link, "https://api.example")
	if a.status != http.StatusOK || !found {
		t.Fatalf("%d %s", a.status, a.body)
	}
	return path
}

func (s *scene) fetch(t testing.TB, path string, header ...string) answer {
	t.Helper()
	r := request{method: http.MethodGet, target: path, header: http.Header{}}
	for i := 0; i < len(header); i += 2 {
		r.header.Set(header[i], header[i+1])
	}
	return s.send(t, r)
}

// A link answers the recording, whole or in parts.
func TestRecording(t *testing.T) {
	t.Parallel()
	s, dir := startWithRecordings(t)
	w := s.tenant(t, "shop")
	sound := strings.Repeat("0123456789", 50_000)
	id := w.recorded(t, dir, sound)
	link := w.link(t, id)
	if a := s.fetch(t, link); a.status != http.StatusOK || a.body != sound || a.header.Get("Content-Type") != "audio/wav" {
		t.Errorf("%d, %d bytes, %v", a.status, len(a.body), a.header)
	}
	for asked, want := range map[string]string{"bytes=0-9": sound[:10], "bytes=499990-": sound[499990:], "bytes=-5": sound[len(sound)-5:]} {
		if a := s.fetch(t, link, "Range", asked); a.status != http.StatusPartialContent || a.body != want || !strings.HasSuffix(a.header.Get("Content-Range"), "/500000") {
			t.Errorf("%s: %d %q %v", asked, a.status, a.body, a.header)
		}
	}
	if a := s.fetch(t, link, "Range", "bytes=600000-"); a.status != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("beyond the end: %d", a.status)
	}
	if got := w.do(t, http.MethodGet, "/cdrs/"+id.String(), "").json(t)["recordingUrl"]; got != api.RecordingURL("https://api.example", id) {
		t.Errorf("%v", got)
	}
	// What took the place of the file is not followed.
	var path string
	if err := s.raw.QueryRowContext(t.Context(), `SELECT recording_path FROM edgvoip.cdr`).Scan(&path); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, path)); err != nil {
		t.Fatal(err)
	}
	if a := s.fetch(t, link); a.status != http.StatusNotFound {
		t.Errorf("without the file: %d", a.status)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("outside"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, path)); err != nil {
		t.Fatal(err)
	}
	if a := s.fetch(t, link); a.status != http.StatusNotFound || strings.Contains(a.body, "outside") {
		t.Errorf("a link to elsewhere: %d %s", a.status, a.body)
	}
}

// Whoever changes anything in a link, or comes too late, sees the same face.
func TestBadLinks(t *testing.T) {
	t.Parallel()
	s, dir := startWithRecordings(t)
	mine, other := s.tenant(t, "mine"), s.tenant(t, "other")
	link := mine.link(t, mine.recorded(t, dir, "mine"))
	parts := strings.Split(link, "/") // "", recordings, tenant, call, expires, signature
	foreign := other.recorded(t, dir, "other").String()
	with := func(i int, text string) string {
		changed := append([]string{}, parts...)
		changed[i] = text
		return strings.Join(changed, "/")
	}
	later, err := strconv.Atoi(parts[4])
	if err != nil {
		t.Fatal(err)
	}
	last := "0"
	if strings.HasSuffix(parts[5], last) {
		last = "1"
	}
	face := ""
	for name, path := range map[string]string{
		"another tenant": with(2, other.tenant.String()), "another call": with(3, foreign), "later": with(4, strconv.Itoa(later+1)), "signature": with(5, parts[5][:63]+last),
		"upper case": with(2, strings.ToUpper(parts[2])), "no signature": with(5, "x"), "short signature": with(5, parts[5][:62]), "parts": link + "/x", "none": "/recordings", "expires": with(4, "+"+parts[4]),
	} {
		a := s.fetch(t, path)
		id, _ := a.json(t)["requestId"].(string)
		if body := strings.ReplaceAll(a.body, id, ""); a.status != http.StatusForbidden || a.code(t) != "bad_link" || face != "" && body != face {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		} else {
			face = body
		}
	}
	if a := s.fetch(t, link); a.status != http.StatusOK || a.body != "mine" {
		t.Fatalf("the link itself: %d %s", a.status, a.body)
	}
	s.skew.Store(int64(5*time.Minute + time.Second))
	if a := s.fetch(t, link); a.status != http.StatusForbidden {
		t.Errorf("too late: %d", a.status)
	}
}

// Operators see what could not be read, have it read again, and remove it; they say what is recorded and how long.
func TestCDRDocuments(t *testing.T) {
	t.Parallel()
	s := start(t)
	anna := s.operator(t, "anna", 0)
	if _, err := s.store.KeepDocument(t.Context(), cdr.Posted{Source: cdr.SourceSweep, Sender: "a.cdr.json", Body: []byte("hello")}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.ReadDocuments(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	list, _ := anna.do(t, http.MethodGet, "/cdr-documents?state=unreadable", "").json(t)["items"].([]any)
	if len(list) != 1 {
		t.Fatalf("%v", list)
	}
	item, _ := list[0].(map[string]any)
	path := fmt.Sprintf("/cdr-documents/%v", item["id"])
	if got := anna.do(t, http.MethodGet, path, "").json(t); got["body"] != "aGVsbG8=" || got["sender"] != "a.cdr.json" || got["reason"] == "" || item["body"] != nil {
		t.Errorf("%v", got)
	}
	for _, step := range []struct {
		method, path string
		status       int
	}{
		{http.MethodPost, path + "/retry", http.StatusNoContent},
		{http.MethodGet, path, http.StatusNotFound},
		{http.MethodDelete, path, http.StatusNotFound},
		{http.MethodPost, "/cdr-documents/x/retry", http.StatusUnprocessableEntity},
	} {
		if a := anna.do(t, step.method, step.path, ""); a.status != step.status {
			t.Errorf("%s %s: %d %s", step.method, step.path, a.status, a.body)
		}
	}
	if _, err := s.store.ReadDocuments(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	if a := anna.do(t, http.MethodDelete, path, ""); a.status != http.StatusNoContent {
		t.Errorf("%d %s", a.status, a.body)
	}

	w := s.tenant(t, "shop")
	tenant := "/tenants/" + w.tenant.String()
	got := anna.do(t, http.MethodPatch, tenant, `{"recordCalls":"external","cdrDays":365}`).json(t)
	if got["recordCalls"] != "external" || got["cdrDays"] != 365.0 || got["recordingDays"] != 0.0 || got["status"] != "active" {
		t.Errorf("%v", got)
	}
	if a := anna.do(t, http.MethodPatch, tenant, `{"cdrDays":-1}`); a.status != http.StatusUnprocessableEntity {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := anna.do(t, http.MethodPatch, tenant, `{"recordCalls":"some"}`); a.status != http.StatusUnprocessableEntity {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := anna.do(t, http.MethodPatch, tenant, `{"status":"suspended","cdrDays":-1}`); a.status != http.StatusUnprocessableEntity {
		t.Errorf("%d %s", a.status, a.body)
	}
	if got := anna.do(t, http.MethodPatch, tenant, `{}`).json(t); got["status"] != "active" || got["cdrDays"] != 365.0 {
		t.Errorf("a change that was refused: %v", got)
	}
	if got := anna.do(t, http.MethodPatch, tenant, `{"status":"suspended","cdrDays":30}`).json(t); got["status"] != "suspended" || got["cdrDays"] != 30.0 {
		t.Errorf("both: %v", got)
	}
}
