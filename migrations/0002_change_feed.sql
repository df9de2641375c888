-- The change feed that read models follow, the switches, and what a change asks of them.

-- +goose Up
-- +goose StatementBegin
DROP TABLE edgvoip.changes;

-- The switches: their event sockets. They belong to no tenant, and are few: a reference table.
CREATE TABLE edgvoip.switch_nodes (
  id              uuid        PRIMARY KEY,
  name            text        NOT NULL CHECK (name ~ '^[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?$'),
  -- host:port of mod_event_socket.
  address         text        NOT NULL CHECK (length(address) BETWEEN 3 AND 260),
  password_sealed bytea       NOT NULL,
  password_key_id text        NOT NULL,
  -- Whether xmlcurl lets this switch keep users in its own cache (SWITCH_CACHES_USERS), which must then be told of every change.
  caches_users    boolean     NOT NULL DEFAULT false,
  status          text        NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'disabled')),
  created_at      timestamptz NOT NULL DEFAULT now(),
  updated_at      timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT switch_nodes_name_key UNIQUE (name)
);
CREATE FUNCTION edgvoip.tell_nodes() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
  PERFORM pg_notify('edgvoip_jobs', '');
  RETURN NULL;
END
$$;
CREATE TRIGGER tell_nodes AFTER INSERT OR UPDATE OR DELETE ON edgvoip.switch_nodes
  FOR EACH STATEMENT EXECUTE FUNCTION edgvoip.tell_nodes();

ALTER TABLE edgvoip.jobs ADD COLUMN node_id uuid REFERENCES edgvoip.switch_nodes (id) ON DELETE CASCADE;
-- A switch has its own jobs, and works them in order of id.
CREATE INDEX jobs_node_idx ON edgvoip.jobs (node_id, id) WHERE state IN ('pending', 'leased');
-- What each switch has still to do, and what was given up: few rows beside those that are done.
CREATE INDEX jobs_open_idx ON edgvoip.jobs (node_id) WHERE node_id IS NOT NULL AND state <> 'done';
CREATE TRIGGER tell_jobs AFTER INSERT ON edgvoip.jobs FOR EACH STATEMENT EXECUTE FUNCTION edgvoip.tell_nodes();

-- What a change of a user, a domain or a tenant asks of every switch: to forget the registrations that the change forbids, and
-- where it caches users, to forget the user. One job a switch, in the transaction of the change, whoever makes it. Who made it
-- may say in edgvoip.correlation_id by what request.
CREATE FUNCTION edgvoip.tell_switches_of_user() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  revoked boolean := true;
BEGIN
  IF TG_OP = 'UPDATE' THEN
    revoked := OLD.status = 'active' AND NEW.status <> 'active'
      OR (OLD.domain_id, OLD.extension, OLD.sip_username, OLD.transport, OLD.ha1_md5_sealed, OLD.ha1_sha256_sealed)
         IS DISTINCT FROM (NEW.domain_id, NEW.extension, NEW.sip_username, NEW.transport, NEW.ha1_md5_sealed, NEW.ha1_sha256_sealed);
  END IF;
  INSERT INTO edgvoip.jobs (tenant_id, node_id, kind, subject, payload, correlation_id)
  SELECT OLD.tenant_id, n.id, 'switch.user', OLD.id,
         jsonb_build_object('realm', d.realm, 'number', OLD.extension, 'username', OLD.sip_username, 'revoked', revoked),
         coalesce(current_setting('edgvoip.correlation_id', true), '')
    FROM edgvoip.switch_nodes n, edgvoip.sip_domains d
   WHERE n.status = 'active' AND (revoked OR n.caches_users) AND d.tenant_id = OLD.tenant_id AND d.id = OLD.domain_id;
  RETURN NULL;
END
$$;
CREATE TRIGGER tell_switches AFTER UPDATE OR DELETE ON edgvoip.sip_extensions
  FOR EACH ROW EXECUTE FUNCTION edgvoip.tell_switches_of_user();

CREATE FUNCTION edgvoip.tell_switches_of_domain() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
  INSERT INTO edgvoip.jobs (tenant_id, node_id, kind, subject, payload, correlation_id)
  SELECT d.tenant_id, n.id, 'switch.domain', d.id, jsonb_build_object('realm', d.realm),
         coalesce(current_setting('edgvoip.correlation_id', true), '')
    FROM edgvoip.switch_nodes n, unnest(ARRAY[OLD]) AS d
   WHERE n.status = 'active';
  RETURN NULL;
END
$$;
CREATE TRIGGER tell_switches_of_updates AFTER UPDATE ON edgvoip.sip_domains FOR EACH ROW
  WHEN ((OLD.status, OLD.realm) IS DISTINCT FROM (NEW.status, NEW.realm)) EXECUTE FUNCTION edgvoip.tell_switches_of_domain();
CREATE TRIGGER tell_switches_of_deletes AFTER DELETE ON edgvoip.sip_domains FOR EACH ROW
  EXECUTE FUNCTION edgvoip.tell_switches_of_domain();

CREATE FUNCTION edgvoip.tell_switches_of_tenant() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
  INSERT INTO edgvoip.jobs (tenant_id, node_id, kind, subject, payload, correlation_id)
  SELECT d.tenant_id, n.id, 'switch.domain', d.id, jsonb_build_object('realm', d.realm),
         coalesce(current_setting('edgvoip.correlation_id', true), '')
    FROM edgvoip.switch_nodes n, edgvoip.sip_domains d
   WHERE n.status = 'active' AND d.status <> 'deleted' AND d.tenant_id = OLD.id;
  RETURN NULL;
END
$$;
CREATE TRIGGER tell_switches AFTER UPDATE ON edgvoip.tenants FOR EACH ROW
  WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION edgvoip.tell_switches_of_tenant();

-- The ordered list of what changed, for read models: written by the triggers below, so that no writer can forget. Rows are
-- small and pruned once every reader has had time to see them. Numbers are given before their transactions commit, so a
-- reader that sees a number missing looks for it again until every transaction is over that could hold it.
CREATE TABLE edgvoip.changes (
  tenant_id uuid        NOT NULL,
  id        bigint      GENERATED ALWAYS AS IDENTITY,
  -- The writer's transaction. With id it tells a row apart from another that has the same id after a failover.
  tx        xid8        NOT NULL DEFAULT pg_current_xact_id(),
  at        timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- 'everything' is a table emptied at once; tenant_id is then zero.
  subject   text        NOT NULL CHECK (subject IN ('tenant', 'domain', 'extension', 'trunk', 'everything')),
  -- The domain of an extension.
  domain_id uuid,
  -- Every name that the change touches, old and new: of an extension its number and username, of a domain its realm.
  names     text[]      NOT NULL DEFAULT '{}',
  PRIMARY KEY (tenant_id, id)
);
CREATE INDEX changes_id_idx ON edgvoip.changes (id);

-- One function for all tables that a lookup reads, called once a statement. It runs as the owner: whoever may write one of
-- these tables needs no right to tell of it.
CREATE FUNCTION edgvoip.tell_changes() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
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
DO $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['tenants', 'sip_domains', 'sip_extensions', 'sip_names', 'sip_trunks', 'sip_trunk_did_ranges'] LOOP
    EXECUTE format('CREATE TRIGGER tell_inserts AFTER INSERT ON edgvoip.%I
      REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION edgvoip.tell_changes()', name);
    EXECUTE format('CREATE TRIGGER tell_updates AFTER UPDATE ON edgvoip.%I
      REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION edgvoip.tell_changes()', name);
    EXECUTE format('CREATE TRIGGER tell_deletes AFTER DELETE ON edgvoip.%I
      REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION edgvoip.tell_changes()', name);
    EXECUTE format('CREATE TRIGGER tell_truncates AFTER TRUNCATE ON edgvoip.%I
      FOR EACH STATEMENT EXECUTE FUNCTION edgvoip.tell_changes()', name);
  END LOOP;
END
$$;

-- Removes changes older than "keep", but never the newest, by which readers know where they are. It runs as the owner, so
-- that each reader can call it; of several at once one works. Returns the number removed, at most 20000, so that a call ends
-- within its caller's statement timeout: a caller that gets 20000 calls again.
CREATE FUNCTION edgvoip.prune_changes(keep interval) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  removed bigint := 0;
BEGIN
  IF pg_try_advisory_xact_lock(hashtext('edgvoip.prune_changes')) THEN
    DELETE FROM edgvoip.changes
     WHERE (tenant_id, id) IN (
           SELECT tenant_id, id FROM edgvoip.changes
            WHERE at < now() - greatest(keep, interval '10 minutes') AND id < (SELECT max(id) FROM edgvoip.changes) - 1000
            ORDER BY id LIMIT 20000);
    GET DIAGNOSTICS removed = ROW_COUNT;
  END IF;
  RETURN removed;
END
$$;

GRANT SELECT, INSERT, UPDATE, DELETE ON edgvoip.switch_nodes TO edgvoip_api;
GRANT SELECT ON edgvoip.changes TO edgvoip_api, edgvoip_xmlcurl;
-- Whoever may execute a trigger function can put it on a table of his own, and then has it write with its owner's rights.
REVOKE EXECUTE ON FUNCTION edgvoip.keep_sip_names(), edgvoip.tell_changes(), edgvoip.tell_nodes(), edgvoip.tell_switches_of_user(),
  edgvoip.tell_switches_of_domain(), edgvoip.tell_switches_of_tenant() FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION edgvoip.prune_changes(interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION edgvoip.prune_changes(interval) TO edgvoip_api, edgvoip_xmlcurl;
-- +goose StatementEnd
