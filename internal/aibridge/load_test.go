package aibridge_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/edgvoip/edgvoip/test/mockgateway"
)

// BenchmarkHundredCalls carries a hundred calls at the same time for some seconds, and then as many streams over a bare
// UDP relay that does nothing else, in the same process. It reports packets lost between the two ends, what a packet
// takes from one end to the other beyond what the relay takes, and the processor time of one call, in which both ends
// and the mock gateway are included.
func BenchmarkHundredCalls(b *testing.B) {
	const calls = 100
	s := newScene(b, nil)
	p := newPhone(b, s.bridge.Addr())
	for b.Loop() {
		legs := make([]*leg, calls)
		var dialling sync.WaitGroup
		slots := make(chan struct{}, 8)
		for i := range legs {
			dialling.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				l := p.newLeg()
				l.send(callOptions{trunk: trunkOf(mockgateway.None)})
				if res, err := l.final(soon(b)); err != nil || !res.IsSuccess() {
					b.Errorf("call %d: %v, %v", i, res, err)
				}
				l.media()
				legs[i] = l
			})
		}
		dialling.Wait()
		took := cpu(b)
		begun := time.Now()
		for _, l := range legs {
			l.mark()
		}
		<-time.After(5 * time.Second)
		busy, wall, bridge := cpu(b)-took, time.Since(begun).Seconds(), s.delays(legs)
		var lost, carried int
		for _, l := range legs {
			r := s.session(l).Report()
			lost += r.Gaps
			carried += r.Packets
			headers := l.headers()
			for i, h := range headers[1:] {
				if h.SequenceNumber != headers[i].SequenceNumber+1 {
					lost++
				}
			}
		}
		for _, l := range legs {
			l.request(soon(b), sip.BYE, "")
			l.close()
		}
		relay, relayBusy := bareRelay(b, calls, 5*time.Second)
		b.ReportMetric(float64(lost), "lost")
		b.ReportMetric(float64(carried), "packets")
		b.ReportMetric(quantile(bridge, .99), "ms-p99")
		b.ReportMetric(quantile(relay, .99), "ms-p99-relay")
		b.ReportMetric(busy.Seconds()/wall/calls*1000, "cpu-ms/s/call")
		b.ReportMetric(relayBusy.Seconds()/5/calls*1000, "cpu-ms/s/relayed")
	}
}

// mark begins to note when packets were sent.
func (l *leg) mark() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timed = true
}

// delays returns how long packets took from a caller to his agent, in milliseconds.
func (s *scene) delays(legs []*leg) (ms []float64) {
	for _, l := range legs {
		ms = append(ms, s.session(l).Delays()...)
	}
	return ms
}

func quantile(list []float64, q float64) float64 {
	if len(list) == 0 {
		return -1
	}
	slices.Sort(list)
	return list[int(q*float64(len(list)-1))]
}

// cpu returns the processor time of this process.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// bareRelay carries as many streams both ways as calls have, by read and write alone.
func bareRelay(b *testing.B, streams int, d time.Duration) (ms []float64, busy time.Duration) {
	b.Helper()
	socket := func() *net.UDPConn {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			b.Fatal(err)
		}
		return c
	}
	addr := func(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }
	var mu sync.Mutex
	var parts sync.WaitGroup
	var all []*net.UDPConn
	before := cpu(b)
	stop := time.Now().Add(d)
	for range 2 * streams {
		from, relay, to := socket(), socket(), socket()
		all = append(all, from, relay, to)
		parts.Go(func() {
			buf := make([]byte, 1500)
			for {
				n, _, err := relay.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				_, _ = relay.WriteToUDPAddrPort(buf[:n], addr(to))
			}
		})
		parts.Go(func() {
			buf := make([]byte, 1500)
			for {
				n, _, err := to.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				took := time.Since(time.Unix(0, int64(binary.BigEndian.Uint64(buf[n-8:n]))))
				mu.Lock()
				ms = append(ms, float64(took.Microseconds())/1000)
				mu.Unlock()
			}
		})
		parts.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			packet := make([]byte, 172)
			for now := range tick.C {
				if now.After(stop) {
					return
				}
				binary.BigEndian.PutUint64(packet[164:], uint64(time.Now().UnixNano()))
				_, _ = from.WriteToUDPAddrPort(packet, addr(relay))
			}
		})
	}
	<-time.After(time.Until(stop))
	busy = cpu(b) - before
	for _, c := range all {
		_ = c.Close()
	}
	parts.Wait()
	mu.Lock()
	defer mu.Unlock()
	return ms, busy
}
