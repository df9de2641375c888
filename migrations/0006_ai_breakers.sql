-- What ai-bridges say of gateways that they leave alone, so that explanations of calls can say so.

-- +goose Up
-- +goose StatementBegin
-- Gateways that an ai-bridge leaves alone because they do not work: the open breakers. A row is believed until open_until, half
-- a minute away at most, so that one of an ai-bridge that died misleads nobody for longer; then the next call asks the gateway.
CREATE TABLE edgvoip.ai_breakers (
  -- The ai-bridge, by host name and address.
  bridge     text        NOT NULL CHECK (length(bridge) BETWEEN 1 AND 300),
  -- The gateway's base URL, as in webhook_endpoints.
  gateway    text        NOT NULL CHECK (length(gateway) BETWEEN 10 AND 512),
  open_until timestamptz NOT NULL,
  PRIMARY KEY (bridge, gateway)
);

-- The same by tenant, without where the gateway is.
CREATE VIEW edgvoip.ai_open_breakers AS
  SELECT e.tenant_id, b.bridge, b.open_until
    FROM edgvoip.ai_breakers b
    JOIN edgvoip.webhook_endpoints e ON e.base_url = b.gateway
   WHERE b.open_until > now();

GRANT SELECT, INSERT, UPDATE, DELETE ON edgvoip.ai_breakers TO edgvoip_ai_bridge;
GRANT SELECT ON edgvoip.ai_open_breakers TO edgvoip_api, edgvoip_xmlcurl;
-- +goose StatementEnd
