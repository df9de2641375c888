-- Recordings that were lost are looked for again.

-- +goose Up
-- +goose StatementBegin
DROP INDEX edgvoip.cdr_recording_idx;
-- Files that are waited for, that did not come, and that are to be removed.
CREATE INDEX cdr_recording_idx ON edgvoip.cdr (recording_state, start_time, call_id)
  WHERE recording_path IS NOT NULL AND recording_state IN ('expected', 'lost', 'removed');
-- +goose StatementEnd
