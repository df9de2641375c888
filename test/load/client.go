package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"syscall"
	"time"
)

// target is a server to ask.
type target struct {
	addr syscall.SockaddrInet4
	// head is that of every request, up to the value of Content-Length.
	head []byte
}

// newTarget returns a server by its address and the credentials that it wants. The head is FreeSWITCH 1.11.1's to the
// letter (mod_xml_curl.c over libcurl): no Expect, and no Connection.
func newTarget(addr, credentials string) (*target, error) {
	a, err := netip.ParseAddrPort(addr)
	if err != nil || !a.Addr().Is4() {
		return nil, fmt.Errorf("server listens on %q, which is no IPv4 address", addr)
	}
	head := "POST /xml HTTP/1.1\r\nHost: " + addr +
		"\r\nAuthorization: Basic " + base64.StdEncoding.EncodeToString([]byte(credentials)) +
		"\r\nUser-Agent: freeswitch-xml/1.0\r\nAccept: */*\r\nContent-Length: "
	return &target{syscall.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, []byte(head)}, nil
}

// maxClients is the number of threads that a run may have.
const maxClients = 250

// client asks over one new connection a request and is the first to close it, as FreeSWITCH does. It speaks to the
// kernel itself: a client that costs much hides what the server costs, as they share the processors. It belongs to one
// goroutine.
//
// Whoever closes first keeps the pair of ports for a minute (TIME_WAIT), and thousands of connections a second would
// use up the 28 000 ports of one address. On loopback Linux takes a pair again after a second, so two addresses are
// enough for 56 000 connections a second to one server, if the port is chosen when the destination is known
// (IP_BIND_ADDRESS_NO_PORT); more addresses would only fill the kernel's table of such pairs. A reset (SO_LINGER) would
// spare them, but the server would see a fault where FreeSWITCH shows it none.
type client struct {
	source, to syscall.SockaddrInet4 // package syscall writes to an address that it is given
	request    []byte
	buffer     []byte
}

func newClient(n int) *client {
	return &client{source: syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(n%2 + 2)}}, buffer: make([]byte, 64<<10)}
}

// patience is how long the kernel waits for the server: what freeswitch-conf/ lets FreeSWITCH wait.
const patience = 2 * time.Second

// ipBindAddressNoPort is IP_BIND_ADDRESS_NO_PORT of ip(7), which package syscall does not have.
const ipBindAddressNoPort = 24

// ask sends one request and returns the answer, whatever its status.
func (c *client) ask(t *target, body []byte) (answer, error) {
	c.request = append(c.request[:0], t.head...)
	c.request = strconv.AppendInt(c.request, int64(len(body)), 10)
	c.request = append(c.request, "\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n"...)
	c.request = append(c.request, body...)
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return answer{}, fmt.Errorf("socket: %w", err)
	}
	c.to = t.addr
	a, err := c.exchange(fd)
	return a, errors.Join(err, syscall.Close(fd))
}

func (c *client) exchange(fd int) (answer, error) {
	wait := syscall.NsecToTimeval(patience.Nanoseconds())
	if err := errors.Join(
		syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1),
		syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, ipBindAddressNoPort, 1),
		syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &wait),
		syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &wait),
		syscall.Bind(fd, &c.source),
	); err != nil {
		return answer{}, fmt.Errorf("socket: %w", err)
	}
	if err := c.connect(fd); err != nil {
		return answer{}, fmt.Errorf("connect: %w", err)
	}
	for rest := c.request; len(rest) > 0; {
		n, err := syscall.Write(fd, rest)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return answer{}, fmt.Errorf("write: %w", err)
		}
		rest = rest[max(n, 0):]
	}
	return c.read(fd)
}

// connect goes on when a signal (of Go's own scheduler) came in between: the kernel has then not stopped.
func (c *client) connect(fd int) error {
	for {
		err := syscall.Connect(fd, &c.to)
		switch {
		case errors.Is(err, syscall.EISCONN):
			return nil
		case !errors.Is(err, syscall.EINTR) && !errors.Is(err, syscall.EALREADY):
			return err
		}
	}
}

func (c *client) read(fd int) (answer, error) {
	for n := 0; n < len(c.buffer); {
		m, err := syscall.Read(fd, c.buffer[n:])
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			return answer{}, fmt.Errorf("read: nothing came for %v", patience)
		case err != nil:
			return answer{}, fmt.Errorf("read: %w", err)
		case m == 0:
			return answer{}, fmt.Errorf("read: the connection ended after %d bytes", n)
		}
		n += m
		if a, complete, err := parseAnswer(c.buffer[:n]); complete || err != nil {
			return a, err
		}
	}
	return answer{}, fmt.Errorf("answer is longer than %d bytes", len(c.buffer))
}
