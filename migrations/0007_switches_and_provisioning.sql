-- What waits for a switch that is away is bounded, and no change of a user is missed while his tenant is suspended and
-- resumed. A new extension is told of once, and by a statement that is planned once a connection.

-- +goose Up
-- +goose StatementBegin
-- Who changes an extension locks these tables in this order, and may do so meanwhile. Users are looked up until the triggers change.
LOCK TABLE edgvoip.sip_names IN SHARE ROW EXCLUSIVE MODE;

-- The users of each tenant of whom a switch has to hear, the oldest first: counted when there is one more.
CREATE INDEX jobs_users_idx ON edgvoip.jobs (node_id, tenant_id, id) WHERE kind = 'switch.user' AND state = 'pending';

DROP FUNCTION edgvoip.ask_switches(uuid, text, uuid, jsonb, boolean);

-- Writes a job for each switch, also for one that is disabled, which is told when it is back; of switches that cache users only,
-- if so asked. A switch that is away for weeks gathers no more than a job for each thing that it must forget: where as much waits
-- already, and for a minute or for a disabled switch, there is no second one. What waits is then locked until the change is committed:
-- nobody can do it before, and leave the change out.
-- Users that are deleted and created again and again are as many things to forget. Where a thousand jobs about users of the tenant wait
-- like that, the next one is to forget everybody of the user's domain, marked "users", and stands for all later ones.
CREATE FUNCTION edgvoip.ask_switches(tenant uuid, asked text, about uuid, domain uuid, task jsonb, caching boolean)
  RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
  everybody CONSTANT jsonb := jsonb_build_object('realm', task->'realm', 'users', true);
  node               record;
  thousandth         timestamptz;
BEGIN
  FOR node IN
    -- Before its jobs, in the order of whoever removes a switch.
    SELECT id, CASE status WHEN 'disabled' THEN 'infinity' ELSE now() - interval '1 minute' END AS before
      FROM edgvoip.switch_nodes WHERE NOT caching OR caches_users FOR KEY SHARE
  LOOP
    -- Found by subject: "=" would let an index of the switch be taken, by a plan from a time when it had few jobs.
    PERFORM FROM edgvoip.jobs
      WHERE tenant_id = tenant AND subject = about::text AND node_id IS NOT DISTINCT FROM node.id AND state = 'pending'
        AND created_at < node.before AND kind = asked AND payload @> CASE task->>'revoked' WHEN 'false' THEN task - 'revoked' ELSE task END
        FOR SHARE;
    CONTINUE WHEN FOUND;
    IF asked = 'switch.user' THEN
      PERFORM FROM edgvoip.jobs
        WHERE tenant_id = tenant AND subject = domain::text AND node_id IS NOT DISTINCT FROM node.id AND state = 'pending'
          AND created_at < node.before AND payload @> everybody
          FOR SHARE;
      CONTINUE WHEN FOUND;
      -- Of many the thousandth is looked for only if the first has waited for long enough, which it mostly has not.
      thousandth := NULL;
      PERFORM FROM (
        SELECT created_at FROM edgvoip.jobs
         WHERE node_id = node.id AND tenant_id = tenant AND kind = 'switch.user' AND state = 'pending' ORDER BY id LIMIT 1) AS first
        WHERE created_at < node.before;
      IF FOUND THEN
        SELECT created_at INTO thousandth FROM edgvoip.jobs
         WHERE node_id = node.id AND tenant_id = tenant AND kind = 'switch.user' AND state = 'pending' ORDER BY id OFFSET 999 LIMIT 1;
      END IF;
      -- Once: each one drops every registration of the domain.
      IF thousandth < node.before AND NOT EXISTS (
        SELECT FROM edgvoip.jobs
         WHERE tenant_id = tenant AND subject = domain::text AND node_id IS NOT DISTINCT FROM node.id AND state = 'pending' AND payload @> everybody)
      THEN
        INSERT INTO edgvoip.jobs (tenant_id, node_id, kind, subject, payload, correlation_id)
        VALUES (tenant, node.id, 'switch.domain', domain, everybody, coalesce(current_setting('edgvoip.correlation_id', true), ''));
        CONTINUE;
      END IF;
    END IF;
    INSERT INTO edgvoip.jobs (tenant_id, node_id, kind, subject, payload, correlation_id)
    VALUES (tenant, node.id, asked, about, task, coalesce(current_setting('edgvoip.correlation_id', true), ''));
  END LOOP;
END
$$;

REVOKE EXECUTE ON FUNCTION edgvoip.ask_switches(uuid, text, uuid, uuid, jsonb, boolean) FROM PUBLIC;

CREATE OR REPLACE FUNCTION edgvoip.tell_switches_of_user() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  revoked boolean := true;
  works   boolean;
BEGIN
  -- Of a suspended tenant the switches have been asked to forget everything, and learn nothing until it is active again. Whoever
  -- changes that waits for this change or lets it wait, so that what the switches are asked then comes after it.
  SELECT status = 'active' INTO works FROM edgvoip.tenants WHERE id = OLD.tenant_id FOR SHARE;
  IF works IS NOT TRUE THEN
    RETURN NULL;
  END IF;
  IF TG_OP = 'UPDATE' THEN
    revoked := OLD.status = 'active' AND NEW.status <> 'active'
      OR (OLD.domain_id, OLD.extension, OLD.sip_username, OLD.transport, OLD.ha1_md5_sealed, OLD.ha1_sha256_sealed)
         IS DISTINCT FROM (NEW.domain_id, NEW.extension, NEW.sip_username, NEW.transport, NEW.ha1_md5_sealed, NEW.ha1_sha256_sealed);
  END IF;
  PERFORM edgvoip.ask_switches(OLD.tenant_id, 'switch.user', OLD.id, d.id,
      jsonb_build_object('realm', d.realm, 'number', OLD.extension, 'username', OLD.sip_username, 'revoked', revoked), NOT revoked)
     FROM edgvoip.sip_domains d
    WHERE d.tenant_id = OLD.tenant_id AND d.id = OLD.domain_id;
  RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION edgvoip.tell_switches_of_domain() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
  PERFORM edgvoip.ask_switches(OLD.tenant_id, 'switch.domain', OLD.id, OLD.id, jsonb_build_object('realm', OLD.realm), false);
  RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION edgvoip.tell_switches_of_tenant() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
  PERFORM edgvoip.ask_switches(d.tenant_id, 'switch.domain', d.id, d.id, jsonb_build_object('realm', d.realm), false)
     FROM edgvoip.sip_domains d
    WHERE d.status <> 'deleted' AND d.tenant_id = OLD.id;
  PERFORM edgvoip.tell_switches_about_trunk(t, OLD.status = 'active', NEW.status = 'active', false, true)
     FROM edgvoip.sip_trunks t
    WHERE t.tenant_id = OLD.id AND t.status = 'active' AND (OLD.status = 'active') <> (NEW.status = 'active');
  RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION edgvoip.tell_changes() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  source text := CASE TG_OP WHEN 'INSERT' THEN 'new_rows' WHEN 'DELETE' THEN 'old_rows' END;
  columns text := CASE TG_TABLE_NAME
    WHEN 'tenants'              THEN $c$id, 'tenant', NULL::uuid, '{}'::text[]$c$
    WHEN 'sip_domains'          THEN $c$tenant_id, 'domain', NULL::uuid, ARRAY[realm]$c$
    WHEN 'sip_extensions'       THEN $c$tenant_id, 'extension', domain_id, ARRAY[extension, lower(sip_username COLLATE "C")]$c$
    WHEN 'sip_names'            THEN $c$tenant_id, 'extension', domain_id, ARRAY[name]$c$
    WHEN 'sip_trunks'           THEN $c$tenant_id, 'trunk', NULL::uuid, '{}'::text[]$c$
    WHEN 'sip_trunk_did_ranges' THEN $c$tenant_id, 'trunk', NULL::uuid, '{}'::text[]$c$
  END;
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    INSERT INTO edgvoip.changes (tenant_id, subject) VALUES ('00000000-0000-0000-0000-000000000000', 'everything');
  ELSIF TG_OP = 'INSERT' AND TG_TABLE_NAME = 'sip_extensions' THEN
    -- As below, but planned once a connection: extensions are provisioned by the thousand.
    INSERT INTO edgvoip.changes (tenant_id, subject, domain_id, names)
    SELECT tenant_id, 'extension', domain_id, ARRAY[extension, lower(sip_username COLLATE "C")] FROM new_rows;
  ELSIF TG_OP = 'UPDATE' THEN
    EXECUTE 'INSERT INTO edgvoip.changes (tenant_id, subject, domain_id, names) SELECT ' || columns || ' FROM old_rows UNION SELECT ' || columns || ' FROM new_rows';
  ELSE
    EXECUTE 'INSERT INTO edgvoip.changes (tenant_id, subject, domain_id, names) SELECT DISTINCT ' || columns || ' FROM ' || source;
  END IF;
  -- Once a transaction, whatever the number of statements.
  PERFORM pg_notify('edgvoip_changes', '');
  RETURN NULL;
END
$$;

-- The names that an extension's own change takes along are told with it.
DROP TRIGGER tell_inserts ON edgvoip.sip_names;
DROP TRIGGER tell_updates ON edgvoip.sip_names;
DROP TRIGGER tell_deletes ON edgvoip.sip_names;
CREATE TRIGGER tell_inserts AFTER INSERT ON edgvoip.sip_names
  REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION edgvoip.tell_changes();
CREATE TRIGGER tell_updates AFTER UPDATE ON edgvoip.sip_names
  REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION edgvoip.tell_changes();
CREATE TRIGGER tell_deletes AFTER DELETE ON edgvoip.sip_names
  REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION edgvoip.tell_changes();
-- +goose StatementEnd
