package fstext_test

import (
	"strings"
	"testing"

	"github.com/edgvoip/edgvoip/internal/fstext"
)

// What is asked for has audio that every switch of ours speaks; what is stored already is read all the same.
func TestCodecs(t *testing.T) {
	t.Parallel()
	for list, ok := range map[string]bool{
		"opus": true, "G722": true, "pcma": true, "PCMU": true, "gsm": true, "G729,PCMA": true, "VP8,H264,opus": true, "OPUS,G722,PCMA,PCMU,G729,GSM,VP8,H264": true,
		"G729": false, "VP8": false, "H264": false, "G729,VP8,H264": false, "G723": false, "PCMA,PCMA": false, "": false,
	} {
		names := strings.Split(list, ",")
		c, err := fstext.ParseCodecs(names)
		if (err == nil) != ok || ok && c.Text().String() != strings.ToUpper(list) {
			t.Errorf("%s: %v, %v", list, c, err)
		}
	}
	if c, err := fstext.NewCodecs([]string{"G729"}); err != nil || c.Text().String() != "G729" {
		t.Errorf("stored: %v, %v", c, err)
	}
}
