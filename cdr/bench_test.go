package cdr_test

import (
	"testing"

	"github.com/edgvoip/edgvoip/cdr"
)

func BenchmarkParse(b *testing.B) {
	bodies := captured(b)
	var list [][]byte
	for _, body := range bodies {
		list = append(list, body)
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		if _, err := cdr.Parse(list[n%len(list)]); err != nil {
			b.Fatal(err)
		}
	}
}
