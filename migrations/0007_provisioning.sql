-- A new extension is told of once, and by a statement that is planned once a connection.

-- +goose Up
-- +goose StatementBegin
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
