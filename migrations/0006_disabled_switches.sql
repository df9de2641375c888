-- Switches that are disabled are told of changes when they are back, and a switch that is away gathers no second job for what waits.

-- +goose Up
-- +goose StatementBegin
-- Writes a job for each switch, also for one that is disabled, which is told when it is back; of switches that cache users only,
-- if so asked. A switch that is away for weeks gathers no more than a job for each thing that it must forget: where as much waits
-- already, and for a minute or for a disabled switch, there is no second one. What waits is then locked until the change is
-- committed: nobody can do it before, and leave the change out.
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
    WHERE d.tenant_id = OLD.tenant_id AND d.id = OLD.domain_id;
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
-- +goose StatementEnd
