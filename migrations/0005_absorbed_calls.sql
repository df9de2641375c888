-- Calls that turn out to be parts of others.

-- +goose Up
-- +goose StatementBegin
-- The call that this one turned out to be a part of, as a leg that came late says. Its record is then empty, and in no list.
ALTER TABLE edgvoip.cdr ADD COLUMN absorbed_by uuid;
-- +goose StatementEnd
