package main

import (
	"fmt"
	"strconv"

	"github.com/edgvoip/edgvoip/internal/secret"
)

// question is one lookup and how to tell that its answer is right.
type question struct {
	body []byte
	// wants are texts that the answer must hold, bans texts that it must not.
	wants, bans []string
}

// reset keeps the memory for the next question.
func (q *question) reset() { q.body, q.wants, q.bans = q.body[:0], q.wants[:0], q.bans[:0] }

// workload is one kind of lookup.
type workload struct {
	name, about string
	aim         aim
	// ask writes the question about an extension. n is random, for what else there is to choose.
	ask func(q *question, extension int, n uint64)
}

// aim is what xmlcurl should reach beside the floor: its rate at least, its CPU time a request at most, as parts of the
// floor's.
type aim struct{ rate, cpu float64 }

var (
	directoryAim = aim{rate: 0.9, cpu: 1.25}
	dialplanAim  = aim{rate: 0.8, cpu: 1.5}
)

// sizeAim is how much the rate may change from one size of database to another.
const sizeAim = 0.1

var workloadNames = []string{"directory", "dialplan", "dialplan-did", "dialplan-public"}

// The captured requests.
const (
	capturedRegister = "directory-sofia_reg_parse_auth-sip_auth-REGISTER-domain"
	capturedCall     = "dialplan-tenant-a-1002-internal"
	capturedCarrier  = "dialplan-public-0612345678-external"
)

// questions are the templates that all workloads are made of.
type questions struct{ register, call, carrier template }

func readQuestions(dir string) (questions, error) {
	var q questions
	var err error
	if q.register, err = readTemplate(dir, capturedRegister, token{"tenant-a.example", slotRealm}, token{"1001", slotUser}); err != nil {
		return q, err
	}
	// The longer name first: the context is its beginning.
	if q.call, err = readTemplate(dir, capturedCall, token{"tenant-a.example", slotRealm}, token{"tenant-a", slotContext},
		token{"1001", slotUser}, token{"1002", slotDialled}); err != nil {
		return q, err
	}
	q.carrier, err = readTemplate(dir, capturedCarrier, token{"0612345678", slotDialled})
	return q, err
}

func (t questions) workload(name string) workload {
	switch name {
	case "directory":
		return workload{name, "a phone registers", directoryAim, t.askRegister}
	case "dialplan":
		return workload{name, "an extension calls another", dialplanAim, t.askCall}
	case "dialplan-did":
		return workload{name, "a carrier calls a DID, as a national number", dialplanAim, t.askCarrier}
	default:
		return workload{name, "an extension calls the public network", dialplanAim, t.askPublic}
	}
}

func (t questions) askRegister(q *question, extension int, _ uint64) {
	user, host := number(extension), realm(tenantOf(extension))
	q.body = t.register.render(q.body, &values{slotRealm: host, slotUser: user})
	q.wants = append(q.wants,
		`<domain name="`+host+`">`,
		`<user id="`+user+`">`,
		`<param name="a1-hash" value="`+secret.HA1MD5(user, host, password(extension))+`"/>`)
}

func (t questions) askCall(q *question, extension int, n uint64) {
	tenant, called := tenantOf(extension), number(neighbour(extension, n))
	t.renderCall(q, extension, called)
	q.wants = append(q.wants, "sofia/internal/"+called+"%"+realm(tenant))
}

func (t questions) askPublic(q *question, extension int, n uint64) {
	called := public(n)
	t.renderCall(q, extension, "%2B"+called)
	q.wants = append(q.wants, "]sofia/gateway/"+trunkID(tenantOf(extension)).String()+"/+"+called+`"`)
}

// renderCall asks for a call of an extension. The answer names the caller by its counter.
func (t questions) renderCall(q *question, extension int, dialled string) {
	tenant := tenantOf(extension)
	q.body = t.call.render(q.body, &values{slotRealm: realm(tenant), slotContext: slug(tenant), slotUser: number(extension), slotDialled: dialled})
	q.wants = append(q.wants,
		`<context name="`+slug(tenant)+`">`,
		"hash edgvoip "+extensionID(extension).String()+" ")
}

// askCarrier calls the DID of an extension, which the tenant's first extension takes.
func (t questions) askCarrier(q *question, extension int, _ uint64) {
	tenant, called := tenantOf(extension), strconv.FormatInt(did(extension), 10)
	q.body = t.carrier.render(q.body, &values{slotDialled: called[len("39"):]})
	q.wants = append(q.wants,
		`data="edgvoip_did=+`+called+`"`,
		`data="edgvoip_trunk_id=`+trunkID(tenant).String()+`"`,
		"sofia/internal/"+number(tenant*perTenant)+"%"+realm(tenant))
}

// askUnknown asks for the nth of the names that do not exist, the kinds in turn: a user of a known domain, a domain, a
// DID. None comes twice, short of ten million. r is random.
func (t questions) askUnknown(q *question, p population, n int, r uint64) {
	extension := p.nth(n)
	switch n % 3 {
	case 0:
		host := realm(tenantOf(extension))
		q.body = t.register.render(q.body, &values{slotRealm: host, slotUser: fmt.Sprintf("x%016x", r)})
		q.wants = append(q.wants, `<domain name="`+host+`"`)
	case 1:
		q.body = t.register.render(q.body, &values{slotRealm: fmt.Sprintf("x%016x.example", r), slotUser: number(extension)})
		q.wants = append(q.wants, `<result status="not found"/>`)
	default:
		q.body = t.carrier.render(q.body, &values{slotDialled: nobodysNumber(n)})
		q.wants = append(q.wants, `<action application="respond" data="404 Not Found"/>`)
	}
	q.bans = append(q.bans, "<user ", `application="bridge"`)
}
