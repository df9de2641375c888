-- Called legs that wait for who called, however long he talks.

-- +goose Up
-- +goose StatementBegin
-- The channel without whose leg a called one makes no call record: that channel may still be up. Null if there is none.
ALTER TABLE edgvoip.cdr_documents ADD COLUMN awaits uuid;
CREATE INDEX cdr_documents_awaits_idx ON edgvoip.cdr_documents (awaits) WHERE awaits IS NOT NULL;
-- +goose StatementEnd
