-- A sign of life of the primary, by which the age of a replica can be told.

-- +goose Up
-- When somebody last wrote on the primary, in one row: integration-api every two seconds. A replica on which it grows old hears
-- nothing of its primary, which the changes cannot tell: a primary on which nothing changes writes none. No reader is told of it.
CREATE TABLE edgvoip.heartbeat (
  one boolean     PRIMARY KEY DEFAULT true CHECK (one),
  at  timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON edgvoip.heartbeat TO edgvoip_api;
GRANT SELECT ON edgvoip.heartbeat TO edgvoip_xmlcurl;
