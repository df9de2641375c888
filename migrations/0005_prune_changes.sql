-- Changes are kept from when everybody could see them, not from when they were written.

-- +goose Up
-- +goose StatementBegin
ALTER TABLE edgvoip.changes ADD COLUMN oldest xid8;
ALTER TABLE edgvoip.changes ALTER COLUMN oldest SET DEFAULT pg_snapshot_xmin(pg_current_snapshot());

CREATE OR REPLACE FUNCTION edgvoip.prune_changes(keep interval) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  removed bigint := 0;
BEGIN
  IF pg_try_advisory_xact_lock(hashtext('edgvoip.prune_changes')) THEN
    DELETE FROM edgvoip.changes
     WHERE (tenant_id, id) IN (
           SELECT tenant_id, id FROM edgvoip.changes
            WHERE at < now() - greatest(keep, interval '10 minutes') AND id < (SELECT max(id) FROM edgvoip.changes) - 1000
              AND tx < (SELECT oldest FROM edgvoip.changes WHERE at < now() - greatest(keep, interval '10 minutes') AND oldest IS NOT NULL
                         ORDER BY id DESC LIMIT 1)
            ORDER BY id LIMIT 20000);
    GET DIAGNOSTICS removed = ROW_COUNT;
  END IF;
  RETURN removed;
END
$$;
-- +goose StatementEnd
