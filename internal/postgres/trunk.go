package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/numbering"
	"github.com/edgvoip/edgvoip/schedule"
	"github.com/edgvoip/edgvoip/trunk"
)

// trunkColumns are what a trunkRow is read from, of table k.
const trunkColumns = `
	k.id AS trunk_id, k.tenant_id, k.name AS trunk_name, k.host, k.port, k.protocol, k.max_channels, k.priority,
	k.source_addresses::text[] AS source_addresses, k.register, k.username, k.password_sealed, k.password_key_id,
	k.caller_id_policy, k.caller_id_number, k.ai_failover_extension, k.ai_agent_ref, k.proxy, k.number_format, k.tech_prefix, k.prefixes,
	k.codecs, k.ping_seconds, k.gateway_revision, k.ai_time_policy, (SELECT timezone FROM edgvoip.tenants WHERE id = k.tenant_id) AS timezone`

type trunkRow struct {
	TrunkID             uuid.UUID      `db:"trunk_id"`
	TenantID            uuid.UUID      `db:"tenant_id"`
	TrunkName           string         `db:"trunk_name"`
	Host                string         `db:"host"`
	Port                int            `db:"port"`
	Protocol            string         `db:"protocol"`
	MaxChannels         int            `db:"max_channels"`
	Priority            int            `db:"priority"`
	SourceAddresses     pq.StringArray `db:"source_addresses"`
	Register            bool           `db:"register"`
	Username            sql.NullString `db:"username"`
	PasswordSealed      []byte         `db:"password_sealed"`
	PasswordKeyID       sql.NullString `db:"password_key_id"`
	CallerIDPolicy      string         `db:"caller_id_policy"`
	CallerIDNumber      sql.NullString `db:"caller_id_number"`
	AIFailoverExtension sql.NullString `db:"ai_failover_extension"`
	AIAgentRef          sql.NullString `db:"ai_agent_ref"`
	AITimePolicy        sql.NullString `db:"ai_time_policy"`
	Timezone            string         `db:"timezone"`
	Proxy               string         `db:"proxy"`
	NumberFormat        string         `db:"number_format"`
	TechPrefix          string         `db:"tech_prefix"`
	Prefixes            pq.StringArray `db:"prefixes"`
	Codecs              pq.StringArray `db:"codecs"`
	PingSeconds         int            `db:"ping_seconds"`
	GatewayRevision     int64          `db:"gateway_revision"`
}

func (r trunkRow) trunk() (trunk.Trunk, error) {
	t := trunk.Trunk{
		ID: r.TrunkID, TenantID: r.TenantID, Port: r.Port, MaxChannels: r.MaxChannels, Priority: r.Priority, Register: r.Register,
		Password: secret.Sealed{KeyID: r.PasswordKeyID.String, Data: r.PasswordSealed}, PingSeconds: r.PingSeconds, Revision: r.GatewayRevision,
		Hours: schedule.ReadHours(r.AITimePolicy.String, r.Timezone),
	}
	var errs [13]error
	t.Name, errs[0] = fstext.NewDisplayName(r.TrunkName)
	t.Host, errs[1] = fstext.NewHost(r.Host)
	t.Protocol, errs[2] = trunk.ParseProtocol(r.Protocol)
	t.CallerID, errs[3] = trunk.ParseCallerIDPolicy(r.CallerIDPolicy)
	if r.Username.Valid {
		t.Username, errs[4] = fstext.NewCredential(r.Username.String)
	}
	if r.CallerIDNumber.Valid {
		t.CallerIDNumber, errs[5] = fstext.NewE164(r.CallerIDNumber.String)
	}
	if r.AIFailoverExtension.Valid {
		t.Failover, errs[6] = fstext.NewExtension(r.AIFailoverExtension.String)
	}
	t.AIAgentRef, errs[7] = trunk.ParseAIAgentRef(r.AIAgentRef.String)
	t.Proxy, errs[8] = trunk.ParseProxy(r.Proxy)
	t.NumberFormat, errs[9] = trunk.ParseNumberFormat(r.NumberFormat)
	t.TechPrefix, errs[10] = trunk.ParseTechPrefix(r.TechPrefix)
	t.Prefixes, errs[11] = trunk.ParsePrefixes(r.Prefixes)
	t.Codecs, errs[12] = trunk.ReadCodecs(r.Codecs)
	for _, s := range r.SourceAddresses {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return trunk.Trunk{}, fmt.Errorf("trunk %s: source address: %w", r.TrunkID, err)
		}
		t.Sources = append(t.Sources, p)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return trunk.Trunk{}, fmt.Errorf("trunk %s: %w", r.TrunkID, err)
	}
	return t, nil
}

func (d *DB) trunks(ctx context.Context, query string, args ...any) ([]trunk.Trunk, error) {
	rows, err := list[trunkRow](ctx, d, query, args...)
	if err != nil {
		return nil, fmt.Errorf("select trunks: %w", err)
	}
	fit := make([]trunk.Trunk, 0, len(rows))
	for _, r := range rows {
		t, err := r.trunk()
		if err != nil {
			d.unfit(ctx, err)
			continue
		}
		fit = append(fit, t)
	}
	return fit, nil
}

// ActiveTrunks implements trunk.Store.
func (d *DB) ActiveTrunks(ctx context.Context) ([]trunk.Trunk, error) {
	return d.trunks(ctx, `
		SELECT`+trunkColumns+`
		  FROM edgvoip.sip_trunks k
		  JOIN edgvoip.tenants t ON t.id = k.tenant_id
		 WHERE k.status = 'active' AND t.status = 'active'
		 ORDER BY k.tenant_id, k.priority, k.id`)
}

// TenantTrunks implements dialplan.Store.
func (d *DB) TenantTrunks(ctx context.Context, tenant uuid.UUID) ([]trunk.Trunk, error) {
	return d.trunks(ctx, `
		SELECT`+trunkColumns+`
		  FROM edgvoip.sip_trunks k
		 WHERE k.tenant_id = $1 AND k.status = 'active'
		 ORDER BY k.priority, k.id`, tenant)
}

// inboundQuery finds the one range that can hold a number: ranges do not overlap, so it is the first that ends at or
// after it.
const inboundQuery = `
	SELECT` + trunkColumns + `
	  FROM (SELECT first_number, tenant_id, trunk_id
	          FROM edgvoip.sip_trunk_did_ranges
	         WHERE last_number >= $1
	         ORDER BY last_number LIMIT 1) r
	  JOIN edgvoip.sip_trunks k ON k.tenant_id = r.tenant_id AND k.id = r.trunk_id
	  JOIN edgvoip.tenants t ON t.id = k.tenant_id
	 WHERE r.first_number <= $1 AND k.status = 'active' AND t.status = 'active'`

// InboundTrunk implements dialplan.Store.
func (d *DB) InboundTrunk(ctx context.Context, number fstext.E164) (trunk.Trunk, error) {
	row, err := get[trunkRow](ctx, d, inboundQuery, number.Int())
	if errors.Is(err, sql.ErrNoRows) {
		return trunk.Trunk{}, trunk.ErrUnknownDID
	} else if err != nil {
		return trunk.Trunk{}, fmt.Errorf("select trunk of a did: %w", err)
	}
	t, err := row.trunk()
	if err != nil {
		d.unfit(ctx, err)
		return trunk.Trunk{}, trunk.ErrUnknownDID
	}
	return t, nil
}

// CarrierCountries implements dialplan.Store.
func (d *DB) CarrierCountries(ctx context.Context, a netip.Addr) ([]numbering.Country, error) {
	const query = `
		SELECT DISTINCT t.country
		  FROM edgvoip.sip_trunks k
		  JOIN edgvoip.tenants t ON t.id = k.tenant_id
		 WHERE k.status = 'active' AND t.status = 'active'
		   AND (EXISTS (SELECT FROM unnest(k.source_addresses) AS s WHERE s >>= $1::inet)
		        OR cardinality(k.source_addresses) = 0 AND k.host = $2)
		 ORDER BY t.country`
	addr := a.Unmap().WithZone("").String()
	codes, err := list[string](ctx, d, query, addr, addr)
	if err != nil {
		return nil, fmt.Errorf("select countries of an address: %w", err)
	}
	countries := make([]numbering.Country, 0, len(codes))
	for _, code := range codes {
		c, err := numbering.NewCountry(code)
		if err != nil {
			d.unfit(ctx, err)
			continue
		}
		countries = append(countries, c)
	}
	return countries, nil
}
