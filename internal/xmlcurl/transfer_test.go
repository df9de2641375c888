package xmlcurl_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/internal/xmlcurl"
)

// A transfer to a call that is not there is answered with a dial string that calls nobody, and a phone whose text would
// be one is hung up on before.
func TestTransferElsewhere(t *testing.T) {
	t.Parallel()
	const phone = "6bd4f2a4-6ec6-4a0f-8d3c-8b5e0d0c1f11"
	const plain = "Replaces=z"
	for _, tc := range []struct {
		params, headers string
		ends            bool
	}{
		{"", "Replaces=a84b4c76%40host%3Bto-tag%3D1%3Bfrom-tag%3D2", false},
		{"transport=tls;user=phone", "Replaces=1-2", false},
		{"", "Replaces=", false},
		{"a=b,c=d", plain, true},
		{"", "Replaces=z}error", true},
		{"", "Replaces=z[a]", true},
		{"a|b", plain, true},
		{"", "Replaces=z&b=:_:user", true},
		{"${version}", plain, true},
		{"a b", plain, true},
		{"^^;a=b", plain, true},
		{"'a'", plain, true},
		{`a\sb`, plain, true},
		{"è", plain, true},
		{"<a=b>", plain, true},
		{"", "Replaces=z&b=c}sofia/internal/sip:y@10.0.0.1,{d=e", true},
	} {
		for _, failure := range []error{nil, errors.New("the switch is not connected")} {
			ended := ""
			s, log := newServer(t, storetest.Scene(t), func(o *xmlcurl.Options) {
				o.Switch.Transfers = true
				o.HangUp = func(_ context.Context, channel uuid.UUID) error {
					ended = channel.String()
					return failure
				}
			})
			doc := lookup(t, s, "hostname=fs&section=channels&tag_name=&key_name=&key_value=&purpose=nightmare_xfer&profile=internal&refer-to-user=x"+
				"&refer-to-host=h&refer-to-params="+encode(tc.params)+"&refer-to-headers="+encode(tc.headers)+"&refer-from-channel-id="+phone)
			if !strings.Contains(doc, `<param name="dial-prefix" value=""/>`) || !strings.Contains(doc, `<param name="absolute-dial-string" value="error/CALL_REJECTED"/>`) {
				t.Errorf("%q %q: %s", tc.params, tc.headers, doc)
			}
			if (ended == phone) != tc.ends {
				t.Errorf("%q %q: hung up on %q", tc.params, tc.headers, ended)
			}
			if told := strings.Contains(log.String(), "could not be hung up on"); told != (tc.ends && failure != nil) {
				t.Errorf("%q %q, %v: the log says %s", tc.params, tc.headers, failure, log)
			}
		}
	}
}

func encode(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// Phones transfer nothing where a switch cannot be told to hang up.
func TestTransfersNeedTheEventSocket(t *testing.T) {
	t.Parallel()
	const question = "hostname=fs&section=configuration&tag_name=configuration&key_name=name&key_value=sofia.conf"
	s, _ := newServer(t, storetest.Scene(t))
	if doc := lookup(t, s, question); strings.Count(doc, `<param name="disable-transfer" value="true"/>`) != 2 {
		t.Errorf("without: %s", doc)
	}
	s, _ = newServer(t, storetest.Scene(t), func(o *xmlcurl.Options) {
		o.Switch.Transfers, o.HangUp = true, func(context.Context, uuid.UUID) error { return nil }
	})
	if doc := lookup(t, s, question); strings.Count(doc, `<param name="disable-transfer" value="true"/>`) != 1 {
		t.Errorf("with: %s", doc) // carriers never do
	}
}
