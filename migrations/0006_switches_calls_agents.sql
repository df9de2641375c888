-- Switches that are told of everything when they are back, replicas whose age can be told, called legs that wait for who called, recordings
-- that turn up, and gateways of agents that are left alone.

-- +goose Up
-- +goose StatementBegin
-- Writes a job for each switch, also for one that is disabled, which is told when it is back; of switches that cache users only,
-- if so asked. A switch that is away for weeks gathers no more than a job for each thing that it must forget: where as much waits
-- already, and for a minute or for a disabled switch, there is no second one. What waits is then locked until the change is committed:
-- nobody can do it before, and leave the change out.
CREATE FUNCTION edgvoip.ask_switches(tenant uuid, asked text, about uuid, task jsonb, caching boolean) RETURNS void LANGUAGE sql SET search_path = pg_catalog AS $$
  WITH nodes AS MATERIALIZED (
    -- Before the jobs, in the order of whoever removes a switch.
    SELECT id, status FROM edgvoip.switch_nodes WHERE NOT caching OR caches_users FOR KEY SHARE
  ), waiting AS MATERIALIZED (
    SELECT j.node_id FROM nodes n JOIN edgvoip.jobs j ON j.node_id = n.id
     WHERE j.tenant_id = tenant AND j.subject = about::text AND j.state = 'pending' AND j.kind = asked
       AND j.payload @> CASE task->>'revoked' WHEN 'false' THEN task - 'revoked' ELSE task END
       AND (n.status = 'disabled' OR j.created_at < now() - interval '1 minute')
       FOR SHARE OF j
  )
  INSERT INTO edgvoip.jobs (tenant_id, node_id, kind, subject, payload, correlation_id)
  SELECT tenant, id, asked, about, task, coalesce(current_setting('edgvoip.correlation_id', true), '')
    FROM nodes WHERE id NOT IN (SELECT node_id FROM waiting)
$$;

REVOKE EXECUTE ON FUNCTION edgvoip.ask_switches(uuid, text, uuid, jsonb, boolean) FROM PUBLIC;

-- What a change of a user, a domain or a tenant asks of every switch: to forget the registrations that the change forbids, and
-- where it caches users, to forget the user. One job a switch, in the transaction of the change, whoever makes it. Who made it
-- may say in edgvoip.correlation_id by what request.
CREATE OR REPLACE FUNCTION edgvoip.tell_switches_of_user() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  revoked boolean := true;
BEGIN
  IF TG_OP = 'UPDATE' THEN
    revoked := OLD.status = 'active' AND NEW.status <> 'active'
      OR (OLD.domain_id, OLD.extension, OLD.sip_username, OLD.transport, OLD.ha1_md5_sealed, OLD.ha1_sha256_sealed)
         IS DISTINCT FROM (NEW.domain_id, NEW.extension, NEW.sip_username, NEW.transport, NEW.ha1_md5_sealed, NEW.ha1_sha256_sealed);
  END IF;
  PERFORM edgvoip.ask_switches(OLD.tenant_id, 'switch.user', OLD.id,
      jsonb_build_object('realm', d.realm, 'number', OLD.extension, 'username', OLD.sip_username, 'revoked', revoked), NOT revoked)
     FROM edgvoip.sip_domains d
    WHERE d.tenant_id = OLD.tenant_id AND d.id = OLD.domain_id
      -- Of a suspended tenant the switches have been asked to forget everything, and learn nothing until it is active again.
      AND EXISTS (SELECT FROM edgvoip.tenants WHERE id = OLD.tenant_id AND status = 'active');
  RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION edgvoip.tell_switches_of_domain() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
  PERFORM edgvoip.ask_switches(OLD.tenant_id, 'switch.domain', OLD.id, jsonb_build_object('realm', OLD.realm), false);
  RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION edgvoip.tell_switches_of_tenant() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
  PERFORM edgvoip.ask_switches(d.tenant_id, 'switch.domain', d.id, jsonb_build_object('realm', d.realm), false)
     FROM edgvoip.sip_domains d
    WHERE d.status <> 'deleted' AND d.tenant_id = OLD.id;
  PERFORM edgvoip.tell_switches_about_trunk(t, OLD.status = 'active', NEW.status = 'active', false, true)
     FROM edgvoip.sip_trunks t
    WHERE t.tenant_id = OLD.id AND t.status = 'active' AND (OLD.status = 'active') <> (NEW.status = 'active');
  RETURN NULL;
END
$$;

-- When somebody last wrote on the primary, in one row: integration-api every two seconds. A replica on which it grows old hears
-- nothing of its primary, which the changes cannot tell: a primary on which nothing changes writes none. No reader is told of it.
CREATE TABLE edgvoip.heartbeat (
  one boolean     PRIMARY KEY DEFAULT true CHECK (one),
  at  timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON edgvoip.heartbeat TO edgvoip_api;
GRANT SELECT ON edgvoip.heartbeat TO edgvoip_xmlcurl;

CREATE INDEX audit_log_correlation_idx ON edgvoip.audit_log (correlation_id, id) WHERE correlation_id <> '';
CREATE INDEX audit_log_at_idx ON edgvoip.audit_log (at);

-- The channel without whose leg a called one makes no call record: that channel may still be up. Null if there is none.
ALTER TABLE edgvoip.cdr_documents ADD COLUMN awaits uuid;
CREATE INDEX cdr_documents_awaits_idx ON edgvoip.cdr_documents (awaits) WHERE awaits IS NOT NULL;

DROP INDEX edgvoip.cdr_recording_idx;
-- Files that are waited for, that did not come, and that are to be removed.
CREATE INDEX cdr_recording_idx ON edgvoip.cdr (recording_state, start_time, call_id)
  WHERE recording_path IS NOT NULL AND recording_state IN ('expected', 'lost', 'removed');

-- Gateways that an ai-bridge leaves alone because they do not work: the open breakers. A row is believed until open_until, half
-- a minute away at most, so that one of an ai-bridge that died misleads nobody for longer; then the next call asks the gateway.
CREATE TABLE edgvoip.ai_breakers (
  -- The ai-bridge, by host name and address.
  bridge     text        NOT NULL CHECK (length(bridge) BETWEEN 1 AND 300),
  -- The gateway's base URL, as in webhook_endpoints.
  gateway    text        NOT NULL CHECK (length(gateway) BETWEEN 10 AND 512),
  open_until timestamptz NOT NULL,
  PRIMARY KEY (bridge, gateway)
);

-- The same by tenant, without where the gateway is.
CREATE VIEW edgvoip.ai_open_breakers AS
  SELECT e.tenant_id, b.bridge, b.open_until
    FROM edgvoip.ai_breakers b
    JOIN edgvoip.webhook_endpoints e ON e.base_url = b.gateway
   WHERE b.open_until > now();

GRANT SELECT, INSERT, UPDATE, DELETE ON edgvoip.ai_breakers TO edgvoip_ai_bridge;
GRANT SELECT ON edgvoip.ai_open_breakers TO edgvoip_api, edgvoip_xmlcurl;

GRANT SELECT (tenant_id) ON edgvoip.webhook_endpoints TO edgvoip_xmlcurl;
-- +goose StatementEnd
