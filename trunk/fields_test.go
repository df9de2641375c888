package trunk_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/edgvoip/edgvoip/trunk"
)

func TestParseProxy(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", "edge.carrier.example": "edge.carrier.example", "Edge.Carrier.Example:5061": "edge.carrier.example:5061", "192.0.2.1": "192.0.2.1",
		"192.0.2.1:05060": "192.0.2.1:5060", "2001:db8::1": "[2001:db8::1]", "[2001:DB8::1]": "[2001:db8::1]", "[2001:db8::1]:5060": "[2001:db8::1]:5060",
	} {
		got, err := trunk.ParseProxy(in)
		if err != nil || got.String() != want {
			t.Errorf("%s is %s, %v; want %s", in, got, err, want)
		}
		if again, err := trunk.ParseProxy(got.String()); err != nil || again != got {
			t.Errorf("%s read again is %s, %v", got, again, err)
		}
	}
	for _, in := range []string{
		" ", "a b", "a:", ":5060", "a:0", "a:65536", "a:-1", "a:x", "a:5060:5061", "[::1", "::1]:5060", "[fe80::1%eth0]:5060", "a;lr", "sip:a", "a/b", "a,b", "${a}",
		"a\n", "<a>", "a@b", "-a:5060", strings.Repeat("a", 300),
	} {
		if got, err := trunk.ParseProxy(in); err == nil {
			t.Errorf("%q is taken as %s", in, got)
		}
	}
}

func TestParsePrefixes(t *testing.T) {
	t.Parallel()
	in := []string{"44", "39", "3906", "39"}
	got, err := trunk.ParsePrefixes(in)
	if err != nil || !slices.Equal(got, []string{"39", "3906", "44"}) || !slices.Equal(in, []string{"44", "39", "3906", "39"}) {
		t.Errorf("%v, %v; given %v", got, err, in)
	}
	if got, err := trunk.ParsePrefixes([]string{}); got != nil || err != nil {
		t.Errorf("none is %v, %v", got, err)
	}
	for _, bad := range [][]string{{""}, {"0"}, {"+39"}, {"3a"}, {"39 "}, {strings.Repeat("1", 16)}, {"39", ""}, slices.Repeat([]string{"39"}, 257)} {
		if got, err := trunk.ParsePrefixes(bad); err == nil {
			t.Errorf("%v is taken as %v", bad, got)
		}
	}
}

func TestParseAITimePolicy(t *testing.T) {
	t.Parallel()
	deep := func(n int) string { return `{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}` }
	for in, want := range map[string]string{
		"": "", "null": "", "{}": "{}", " { \"b\" : 1.50, \"a\" : [ true , null ] } ": `{"a":[true,null],"b":1.50}`, `{"a":"\u00e8 <&> \/"}`: `{"a":"è <&> /"}`,
		`{"a":12345678901234567890.5}`: `{"a":12345678901234567890.5}`, deep(7): deep(7), `{"a":"` + strings.Repeat("x", 16<<10-9) + `"}`: `{"a":"` + strings.Repeat("x", 16<<10-9) + `"}`,
	} {
		got, err := trunk.ParseAITimePolicy([]byte(in))
		if err != nil || string(got) != want {
			t.Errorf("%.80s is %.80s, %v; want %.80s", in, got, err, want)
		}
		if again, err := trunk.ParseAITimePolicy(got); err != nil || string(again) != string(got) {
			t.Errorf("%.80s read again is %.80s, %v", got, again, err)
		}
	}
	for _, in := range []string{
		" ", "7", `"a"`, "[]", "true", "{", "{} {}", `{"a":}`, `{"a":1e2}`, `{"a":1E2}`, `{"a":-0}`, `{"a":` + strings.Repeat("1", 33) + `}`, `{"a":"\u0000"}`, `{"\u0000":1}`,
		deep(8), `{"a":"` + strings.Repeat("x", 16<<10) + `"}`,
	} {
		if got, err := trunk.ParseAITimePolicy([]byte(in)); err == nil {
			t.Errorf("%.80s is taken as %.80s", in, got)
		} else if strings.Contains(err.Error(), "xxx") {
			t.Errorf("the error repeats the value: %.80s", err)
		}
	}
}

func TestParseDIDRange(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]trunk.DIDRange{
		"+390612345600": {First: "+390612345600"}, "0612345600-0612345699": {First: "0612345600", Last: "0612345699"},
		" +390612345600 - +390612345699 ": {First: "+390612345600", Last: "+390612345699"}, "": {}, "-1": {Last: "1"}, "1-2-3": {First: "1", Last: "2-3"},
	} {
		if got := trunk.ParseDIDRange(in); got != want {
			t.Errorf("%q is %v, want %v", in, got, want)
		}
	}
}
