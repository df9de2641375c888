package mockgateway

import (
	"encoding/binary"
	"math"
	"sync"
	"time"
)

// FrameSamples is one packet of 20 ms at 8000 Hz.
const FrameSamples = 160

const sampleRate = 8000

// Tone makes a sine of a frequency in Hz, as PCMU. It is not safe for concurrent use.
type Tone struct {
	Hz    float64
	phase float64
}

// Next returns the next frame.
func (t *Tone) Next() []byte {
	b := make([]byte, FrameSamples)
	for i := range b {
		b[i] = encode(int16(8000 * math.Sin(t.phase)))
		t.phase = math.Mod(t.phase+2*math.Pi*t.Hz/sampleRate, 2*math.Pi)
	}
	return b
}

// A stamped frame ends in a mark and in when it was sent, so that whoever gets it can tell how long it took.
const (
	stampMark  = 0xed6e5707
	stampBytes = 12
)

// Stamp stamps a frame.
func Stamp(frame []byte, at time.Time) {
	b := frame[len(frame)-stampBytes:]
	binary.BigEndian.PutUint32(b, stampMark)
	binary.BigEndian.PutUint64(b[4:], uint64(at.UnixNano()))
}

// Stamped returns when a frame was stamped; false if it was not.
func Stamped(frame []byte) (time.Time, bool) {
	if len(frame) < stampBytes {
		return time.Time{}, false
	}
	b := frame[len(frame)-stampBytes:]
	return time.Unix(0, int64(binary.BigEndian.Uint64(b[4:]))), binary.BigEndian.Uint32(b) == stampMark //nolint:gosec // after 1970
}

// Ear hears tones in PCMU: in the last 200 ms. It is safe for concurrent use.
type Ear struct {
	mu      sync.Mutex
	samples []float64
}

const window = sampleRate / 5

// Hear takes the payload of a packet.
func (e *Ear) Hear(payload []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, b := range payload {
		e.samples = append(e.samples, float64(decode(b)))
	}
	if extra := len(e.samples) - window; extra > 0 {
		e.samples = append(e.samples[:0], e.samples[extra:]...)
	}
}

// Share returns which share of what was heard is a tone of a frequency in Hz: nearly 1 for that tone alone, nearly 0
// for silence, noise, gaps or another. It is Goertzel's algorithm.
func (e *Ear) Share(hz float64) float64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.samples) < window {
		return 0
	}
	c := 2 * math.Cos(2*math.Pi*hz/sampleRate)
	var s1, s2, energy float64
	for _, x := range e.samples {
		s1, s2 = x+c*s1-s2, s1
		energy += x * x
	}
	if energy < 1 {
		return 0
	}
	return 2 * (s1*s1 + s2*s2 - c*s1*s2) / (float64(len(e.samples)) * energy)
}

// encode and decode are G.711 µ-law (ITU-T G.711, table 2).
func encode(x int16) byte {
	const bias, clip = 0x84, 32635
	var sign byte
	v := int(x)
	if v < 0 {
		sign, v = 0x80, -v
	}
	v = min(v, clip) + bias
	exponent := 7
	for mask := 0x4000; v&mask == 0 && exponent > 0; mask >>= 1 {
		exponent--
	}
	return ^(sign | byte(exponent<<4|v>>(exponent+3)&0x0f)) //nolint:gosec // seven bits
}

func decode(b byte) int16 {
	b = ^b
	v := (int(b&0x0f)<<3 + 0x84) << (b >> 4 & 7)
	v -= 0x84
	if b&0x80 != 0 {
		v = -v
	}
	return int16(v) //nolint:gosec // at most 32124
}
