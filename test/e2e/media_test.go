package e2e_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/test/mockgateway"
)

// codec is one payload type of an offer.
type codec struct {
	payload int
	name    string // as in rtpmap
}

var (
	pcma = codec{8, "PCMA/8000"}
	pcmu = codec{0, "PCMU/8000"}
	g729 = codec{18, "G729/8000"}
	gsm  = codec{3, "GSM/8000"}
	// events are digits (RFC 4733). No phone has them alone.
	events = codec{101, "telephone-event/8000"}
)

// media is one side's audio: it sends a packet every 20 ms, all filled with one byte, and counts the packets it hears
// by the byte that fills them. A switch that does not transcode passes payloads on as they are. One with a tone plays
// that instead.
type media struct {
	conn   *net.UDPConn
	mark   byte
	codecs []codec
	secure *srtpPair // nil for plain RTP
	tone   *mockgateway.Tone
	ear    mockgateway.Ear // hears PCMU
	press  chan byte       // digits to send

	peer  atomic.Pointer[net.UDPAddr]
	mu    sync.Mutex
	heard map[byte]int
	bad   int // packets that did not authenticate
	// digits are those heard; lastDigit is the timestamp of the last.
	digits    string
	lastDigit uint32
	stop      chan struct{}
	done      sync.WaitGroup
}

func newMedia(t *testing.T, mark byte, secure bool, codecs ...codec) *media {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if len(codecs) == 0 {
		codecs = []codec{pcma}
	}
	m := &media{conn: conn, mark: mark, codecs: codecs, heard: map[byte]int{}, press: make(chan byte, 16), stop: make(chan struct{})}
	if secure {
		m.secure = newSRTPPair(t)
	}
	m.done.Go(m.listen)
	t.Cleanup(m.close)
	return m
}

func (m *media) close() {
	select {
	case <-m.stop:
		return
	default:
		close(m.stop)
	}
	m.conn.Close()
	m.done.Wait()
}

// offer is the SDP of this side, as an offer or as an answer.
func (m *media) offer() string {
	port := m.conn.LocalAddr().(*net.UDPAddr).Port
	profile := "RTP/AVP"
	if m.secure != nil {
		profile = "RTP/SAVP"
	}
	var payloads, maps strings.Builder
	for _, c := range m.codecs {
		fmt.Fprintf(&payloads, " %d", c.payload)
		fmt.Fprintf(&maps, "a=rtpmap:%d %s\r\n", c.payload, c.name)
	}
	sdp := "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n" +
		fmt.Sprintf("m=audio %d %s%s\r\n", port, profile, payloads.String()) + maps.String()
	if m.secure != nil {
		sdp += "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:" + base64.StdEncoding.EncodeToString(m.secure.localKey) + "\r\n"
	}
	return sdp + "a=ptime:20\r\n"
}

var (
	audioLine  = regexp.MustCompile(`(?m)^m=audio (\d+) (\S+)((?: \d+)+)`)
	addressOf  = regexp.MustCompile(`(?m)^c=IN IP4 (\S+)`)
	cryptoLine = regexp.MustCompile(`(?m)^a=crypto:\d+ AES_CM_128_HMAC_SHA1_80 inline:([A-Za-z0-9+/=]+)`)
)

// payloadsOf returns the payload types of a session description, without telephone-event and comfort noise.
func payloadsOf(sdp string) []int {
	m := audioLine.FindStringSubmatch(sdp)
	if m == nil {
		return nil
	}
	var payloads []int
	for f := range strings.FieldsSeq(m[3]) {
		n, _ := strconv.Atoi(f)
		if n == 13 || regexp.MustCompile(`(?mi)^a=rtpmap:`+f+` telephone-event/`).MatchString(sdp) {
			continue
		}
		payloads = append(payloads, n)
	}
	return payloads
}

// start sends to where the other side's SDP says.
func (m *media) start(t *testing.T, sdp string) {
	t.Helper()
	line, addr := audioLine.FindStringSubmatch(sdp), addressOf.FindStringSubmatch(sdp)
	if line == nil || addr == nil {
		t.Fatalf("no audio in the session description:\n%s", sdp)
	}
	if m.secure != nil {
		key := cryptoLine.FindStringSubmatch(sdp)
		if key == nil || line[2] != "RTP/SAVP" {
			t.Fatalf("no SRTP in the answer:\n%s", sdp)
		}
		raw, err := base64.StdEncoding.DecodeString(key[1])
		if err != nil {
			t.Fatal(err)
		}
		m.secure.setRemote(t, raw)
	}
	peer, err := net.ResolveUDPAddr("udp4", addr[1]+":"+line[1])
	if err != nil {
		t.Fatal(err)
	}
	payloads := payloadsOf(sdp)
	common := slices.IndexFunc(m.codecs, func(c codec) bool { return slices.Contains(payloads, c.payload) })
	if common < 0 {
		t.Fatalf("no common codec in the session description:\n%s", sdp)
	}
	if m.peer.Swap(peer) == nil {
		m.done.Go(func() { m.talk(byte(m.codecs[common].payload)) })
	}
}

func (m *media) talk(payload byte) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	packet := make([]byte, 12+160)
	packet[0] = 0x80
	binary.BigEndian.PutUint32(packet[8:], 0x45564f50+uint32(m.mark))
	for i := 12; i < len(packet); i++ {
		packet[i] = m.mark
	}
	seq := uint16(0)
	send := func(payload byte, packet []byte) {
		seq++
		packet[1] = payload
		binary.BigEndian.PutUint16(packet[2:], seq)
		if m.secure != nil {
			packet = m.secure.protect(packet)
		}
		// Lost packets are the receiver's business; a socket that is being closed ends the loop below.
		_, _ = m.conn.WriteToUDP(packet, m.peer.Load())
	}
	for frame := uint32(1); ; frame++ {
		binary.BigEndian.PutUint32(packet[4:], frame*160)
		if m.tone != nil {
			copy(packet[12:], m.tone.Next())
		}
		send(payload, packet)
		select {
		case <-m.stop:
			return
		case digit := <-m.press:
			event := append(bytes.Clone(packet[:12]), digit, 10, 0, 0)
			for i := range 6 { // half of them say that it is over
				event[13] = byte(10 | i/3<<7)
				binary.BigEndian.PutUint16(event[14:], uint16(160*(1+i)))
				send(byte(events.payload), event)
			}
		case <-tick.C:
		}
	}
}

func (m *media) listen() {
	buf := make([]byte, 2048)
	for {
		n, _, err := m.conn.ReadFromUDP(buf)
		if err != nil {
			return
		}
		packet := buf[:n]
		if n < 13 || packet[0]>>6 != 2 || packet[1]&0x7f >= 72 && packet[1]&0x7f <= 76 { // RTCP
			continue
		}
		if m.secure != nil {
			var ok bool
			if packet, ok = m.secure.unprotect(packet); !ok {
				m.mu.Lock()
				m.bad++
				m.mu.Unlock()
				continue
			}
		}
		if packet[1]&0x7f == byte(pcmu.payload) {
			m.ear.Hear(packet[12:])
		}
		m.mu.Lock()
		if packet[1]&0x7f == byte(events.payload) {
			m.hearDigit(packet)
		} else {
			m.heard[packet[len(packet)/2]]++
		}
		m.mu.Unlock()
	}
}

// hearDigit notes a digit once, when it is over. The caller has the lock.
func (m *media) hearDigit(packet []byte) {
	stamp := binary.BigEndian.Uint32(packet[4:])
	if len(packet) < 16 || packet[13]&0x80 == 0 || packet[12] > 9 || stamp == m.lastDigit {
		return
	}
	m.lastDigit = stamp
	m.digits += strconv.Itoa(int(packet[12]))
}

func (m *media) heardDigits() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.digits
}

func (m *media) count(mark byte) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.heard[mark]
}

// hears waits until enough packets with a mark have arrived.
func (m *media) hears(t *testing.T, mark byte, packets int) {
	t.Helper()
	eventually(t, 8*time.Second, func() error {
		if n := m.count(mark); n < packets {
			return fmt.Errorf("heard %d of %d packets marked %#x", n, packets, mark)
		}
		return nil
	})
}

// srtpPair encrypts and decrypts one call's audio: AES_CM_128_HMAC_SHA1_80 (RFC 3711) for streams short enough to wrap
// their sequence numbers at most once.
type srtpPair struct {
	localKey []byte // master key and salt, 16 + 14 bytes
	out      srtpKeys
	in       atomic.Pointer[srtpKeys]
}

type srtpKeys struct {
	block cipher.Block
	salt  []byte
	auth  []byte
}

const srtpTag = 10

func newSRTPPair(t *testing.T) *srtpPair {
	t.Helper()
	key := make([]byte, 30)
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	p := &srtpPair{localKey: key}
	p.out = deriveSRTP(t, key)
	return p
}

func (p *srtpPair) setRemote(t *testing.T, key []byte) {
	t.Helper()
	if len(key) != 30 {
		t.Fatalf("SRTP key of %d bytes", len(key))
	}
	k := deriveSRTP(t, key)
	p.in.Store(&k)
}

// deriveSRTP makes the session keys of RFC 3711, 4.3.1, with a key derivation rate of zero.
func deriveSRTP(t *testing.T, master []byte) srtpKeys {
	t.Helper()
	prf, err := aes.NewCipher(master[:16])
	if err != nil {
		t.Fatal(err)
	}
	derive := func(label byte, n int) []byte {
		iv := make([]byte, aes.BlockSize)
		copy(iv, master[16:])
		iv[7] ^= label
		out := make([]byte, n)
		cipher.NewCTR(prf, iv).XORKeyStream(out, out)
		return out
	}
	block, err := aes.NewCipher(derive(0, 16))
	if err != nil {
		t.Fatal(err)
	}
	return srtpKeys{block: block, auth: derive(1, 20), salt: derive(2, 14)}
}

// crypt encrypts or decrypts a packet in place; wraps is how often its sequence number has wrapped.
func (k *srtpKeys) crypt(packet []byte, wraps byte) {
	iv := make([]byte, aes.BlockSize)
	copy(iv, k.salt)
	for i := range 4 {
		iv[4+i] ^= packet[8+i] // SSRC
	}
	iv[11] ^= wraps
	iv[12] ^= packet[2]
	iv[13] ^= packet[3]
	cipher.NewCTR(k.block, iv).XORKeyStream(packet[12:], packet[12:])
}

func (k *srtpKeys) tag(packet []byte, wraps byte) []byte {
	mac := hmac.New(sha1.New, k.auth)
	mac.Write(packet)
	mac.Write([]byte{0, 0, 0, wraps})
	return mac.Sum(nil)[:srtpTag]
}

func (p *srtpPair) protect(packet []byte) []byte {
	out := append(make([]byte, 0, len(packet)+srtpTag), packet...)
	p.out.crypt(out, 0)
	return append(out, p.out.tag(out, 0)...)
}

func (p *srtpPair) unprotect(packet []byte) ([]byte, bool) {
	k := p.in.Load()
	if k == nil || len(packet) < 12+srtpTag {
		return nil, false
	}
	body, tag := packet[:len(packet)-srtpTag], packet[len(packet)-srtpTag:]
	for wraps := range byte(2) {
		if subtle.ConstantTimeCompare(k.tag(body, wraps), tag) == 1 {
			plain := append([]byte(nil), body...)
			k.crypt(plain, wraps)
			return plain, true
		}
	}
	return nil, false
}
