-- The audit log is asked by request and by time.

-- +goose Up
CREATE INDEX audit_log_correlation_idx ON edgvoip.audit_log (correlation_id, id) WHERE correlation_id <> '';
CREATE INDEX audit_log_at_idx ON edgvoip.audit_log (at);
