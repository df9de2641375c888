package xmlcurl

import (
	"net/url"
	"strings"
	"testing"
)

func TestFieldNames(t *testing.T) {
	t.Parallel()
	for f, name := range fieldNames {
		if found, ok := fieldOf([]byte(name)); !ok || found != field(f) {
			t.Errorf("%q is field %d, %v; want %d: one is missing or there twice", name, found, ok, f)
		}
	}
	for _, fixed := range []string{"", "hostname", "section", "tag_name", "key_name", "key_value"} {
		if _, ok := fieldOf([]byte(fixed)); ok {
			t.Errorf("%q is read by position, not by name", fixed)
		}
	}
}

func TestUnescape(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", "a": "a", "a+b": "a+b", "a%20b": "a b", "%2B39": "+39", "%": "%", "%4": "%4", "%4g": "%4g", "%g4": "%g4", "%%41": "%A", "%41%": "A%", "a%00b": "a\x00b",
	} {
		if got := string(appendUnescaped(nil, []byte(in))); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

const fixedFields = "hostname=h&section=directory&tag_name=domain&key_name=name&key_value=a.example"

// Laws: reading never fails on what follows the five fields; the first four are never changed by it; the last of a name
// counts; and what was percent-encoded comes back as it was.
func FuzzForm(f *testing.F) {
	f.Add("user", "1001", "&user=1002&purpose=gateways")
	f.Add("domain", "${x}&=%\x00", "")
	f.Add("action", "sip_auth", "&section=configuration&key_value=sofia.conf")
	f.Fuzz(func(t *testing.T, name, value, middle string) {
		encoded := strings.ReplaceAll(url.QueryEscape(value), "+", "%20")
		body := fixedFields + middle + "&" + name + "=" + encoded
		var got form
		if err := got.parse([]byte(body)); err != nil {
			t.Fatalf("%q is refused: %v", body, err)
		}
		if got.hostname != "h" || got.section != "directory" || got.tagName != "domain" || got.keyName != "name" {
			t.Errorf("the middle %q changed a field before it: %+v", middle, got)
		}
		if k, known := fieldOf([]byte(name)); known && got.get(k) != value {
			t.Errorf("last %s is %q, want %q", name, got.get(k), value)
		}
		for k := range fieldCount {
			if !got.given[k] && got.values[k] != "" {
				t.Errorf("%s has a value and was not given", fieldNames[k])
			}
		}
	})
}

// Law: whatever is sent, reading it does not crash, and what is read was in it.
func FuzzBody(f *testing.F) {
	f.Add([]byte(fixedFields))
	f.Add([]byte("hostname=&section=&tag_name=&key_name=&key_value="))
	f.Add([]byte("%%%&&&==="))
	f.Fuzz(func(t *testing.T, body []byte) {
		var got form
		if got.parse(body) != nil {
			return
		}
		if !strings.HasPrefix(string(body), "hostname") || !strings.Contains(string(body), got.hostname) {
			t.Errorf("host name %q is not that of %q", got.hostname, body)
		}
		total := 0
		for _, v := range got.values {
			total += len(v)
		}
		if total > len(body) {
			t.Errorf("%d bytes of values from %d", total, len(body))
		}
	})
}
