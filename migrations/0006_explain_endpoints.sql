-- An explanation of a call says whether the tenant has an endpoint of W3's, without which no agent can be asked for.

-- +goose Up
-- +goose StatementBegin
GRANT SELECT (tenant_id) ON edgvoip.webhook_endpoints TO edgvoip_xmlcurl;
-- +goose StatementEnd
