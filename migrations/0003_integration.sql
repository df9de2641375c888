-- What the integration API needs: names of domains, signatures that were used, operators, and the indexes of its lists.

-- +goose Up
-- +goose StatementBegin
ALTER TABLE edgvoip.sip_domains
  -- What people call it at W3; null until W3 says.
  ADD COLUMN name text CHECK (length(name) BETWEEN 1 AND 64);

ALTER TABLE edgvoip.integration_secrets
  -- To about ten seconds. Shows whether an old secret can go.
  ADD COLUMN last_used_at timestamptz;

-- Signatures of requests that were let in, until their timestamp is too old to be let in again: a second one is a replay.
-- Rows are written by asynchronous commit, which costs no flush. A crash of the server may lose the last of them, but never
-- one whose request wrote something: that write's own commit flushed the log up to itself.
CREATE TABLE edgvoip.seen_signatures (
  tenant_id  uuid        NOT NULL,
  signature  bytea       NOT NULL CHECK (length(signature) = 32),
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, signature)
);
CREATE INDEX seen_signatures_expiry_idx ON edgvoip.seen_signatures (expires_at);

-- The tokens of operators, our own people. They belong to no tenant, and are few: a reference table.
CREATE TABLE edgvoip.operator_tokens (
  id           uuid        PRIMARY KEY,
  -- Who it is, as the audit log names him.
  name         text        NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,63}$'),
  -- SHA-256 of the token, which is random and long.
  token_sha256 bytea       NOT NULL CHECK (length(token_sha256) = 32),
  created_at   timestamptz NOT NULL DEFAULT now(),
  expires_at   timestamptz,
  revoked_at   timestamptz,
  CONSTRAINT operator_tokens_token_key UNIQUE (token_sha256)
);
-- A revoked token gives its name free.
CREATE UNIQUE INDEX operator_tokens_name_key ON edgvoip.operator_tokens (name) WHERE revoked_at IS NULL;

-- A tenant's extensions by number, page by page.
CREATE INDEX sip_extensions_list_idx ON edgvoip.sip_extensions (tenant_id, extension, id);
-- The audit log of all tenants, newest first.
CREATE INDEX audit_log_id_idx ON edgvoip.audit_log (id);
-- What each switch was last told of a subject.
CREATE INDEX jobs_convergence_idx ON edgvoip.jobs (tenant_id, subject, node_id, id) WHERE node_id IS NOT NULL;

GRANT SELECT, INSERT, DELETE ON edgvoip.seen_signatures TO edgvoip_api;
GRANT SELECT, INSERT, UPDATE ON edgvoip.operator_tokens TO edgvoip_api;
-- +goose StatementEnd
