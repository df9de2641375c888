-- edgvoip: the database schema, complete, the one that people read.
--
-- Rules that hold for every table:
--   * The primary key leads with tenant_id, so that each table can be distributed by tenant (Citus or another
--     PostgreSQL-compatible engine) unchanged. Where a value must be unique over all tenants (a realm, a DID),
--     the table also carries a second, global constraint and is meant to become a reference table.
--   * Identifiers are UUIDs made by the writer; times are timestamptz; names that FreeSWITCH may read have a CHECK
--     that repeats the outline of the Go type that guards them (internal/fstext), as a second wall.
--   * Secrets are never stored in plain text: a password becomes an Argon2id hash, a digest A1 or a carrier's
--     password becomes an AES-256-GCM ciphertext whose key lives outside the database (SECRET_KEYS_FILE); the id of
--     that key stands beside the ciphertext.
--
-- migrations/ builds exactly this schema; a test compares the two. Change both together.

CREATE SCHEMA edgvoip;

-- Three roles. None can log in: grant them to the login that each process uses.
--   edgvoip_api        integration-api: reads and writes everything; the audit log only grows.
--   edgvoip_xmlcurl    xmlcurl: reads what it renders and nothing else, neither Argon2id hashes nor API secrets.
--   edgvoip_ai_bridge  ai-bridge: reads who answers the calls of which trunk, and what W3's gateway is asked with.
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'edgvoip_api') THEN
    CREATE ROLE edgvoip_api NOLOGIN;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'edgvoip_xmlcurl') THEN
    CREATE ROLE edgvoip_xmlcurl NOLOGIN;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'edgvoip_ai_bridge') THEN
    CREATE ROLE edgvoip_ai_bridge NOLOGIN;
  END IF;
EXCEPTION
  -- Roles are the cluster's: another database of it may be at the same point.
  WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

-- A tenant is a customer of W3. Everything below belongs to exactly one.
CREATE TABLE edgvoip.tenants (
  id                uuid        PRIMARY KEY,
  -- Short name; also the name of the tenant's dialplan context in FreeSWITCH.
  slug              text        NOT NULL CHECK (slug ~ '^[a-z][a-z0-9-]{1,62}$' AND slug NOT IN ('public', 'default', 'global', 'nobody')),
  name              text        NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
  -- ISO 3166-1 alpha-2: how a number dialled in national form is read.
  country           text        NOT NULL CHECK (country ~ '^[A-Z]{2}$'),
  -- IANA zone for schedules and reports.
  timezone          text        NOT NULL DEFAULT 'UTC',
  status            text        NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'deleted')),
  created_at        timestamptz NOT NULL DEFAULT now(),
  updated_at        timestamptz NOT NULL DEFAULT now(),
  -- Which calls are recorded: none, those from carriers, those to carriers, both of them, or also those between extensions.
  record_calls text NOT NULL DEFAULT 'none' CHECK (record_calls IN ('none', 'inbound', 'outbound', 'external', 'all')),
  -- How many days call records and recordings are kept; null is for ever.
  cdr_days integer CHECK (cdr_days BETWEEN 1 AND 36500),
  recording_days integer CHECK (recording_days BETWEEN 1 AND 36500)
);
-- A deleted tenant gives its name free.
CREATE UNIQUE INDEX tenants_slug_key ON edgvoip.tenants (slug) WHERE status <> 'deleted';
COMMENT ON TABLE edgvoip.tenants IS 'Customers of W3; the root of every other row.';

-- A SIP domain. The realm is what phones are challenged with, so it is part of every stored A1:
-- a change of realm needs new passwords, and is therefore a new row.
CREATE TABLE edgvoip.sip_domains (
  tenant_id    uuid        NOT NULL REFERENCES edgvoip.tenants (id),
  id           uuid        NOT NULL,
  -- Lower case; starts with a letter because FreeSWITCH joins user and domain without a separator in its cache key.
  realm        text        NOT NULL CHECK (realm ~ '^[a-z]([a-z0-9.-]*[a-z0-9])?$' AND length(realm) <= 253),
  w3_domain_id uuid,
  status       text        NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'disabled', 'deleted')),
  created_at   timestamptz NOT NULL DEFAULT now(),
  updated_at   timestamptz NOT NULL DEFAULT now(),
  -- What people call it at W3; null until W3 says.
  name         text        CHECK (length(name) BETWEEN 1 AND 64),
  PRIMARY KEY (tenant_id, id)
);
-- A deleted domain gives its realm free.
CREATE UNIQUE INDEX sip_domains_realm_key ON edgvoip.sip_domains (realm) WHERE status <> 'deleted';

-- An extension: a person's number inside the tenant and the SIP account behind it.
CREATE TABLE edgvoip.sip_extensions (
  tenant_id            uuid        NOT NULL REFERENCES edgvoip.tenants (id),
  id                   uuid        NOT NULL,
  domain_id            uuid        NOT NULL,
  extension            text        NOT NULL CHECK (extension ~ '^[0-9]{2,12}$'),
  -- What the phone logs in with; may differ from the number. Compared without case.
  sip_username         text        NOT NULL CHECK (sip_username ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
  display_name         text        NOT NULL CHECK (length(display_name) BETWEEN 1 AND 64),
  -- The transport that the phone must use; 'any' leaves it the choice.
  transport            text        NOT NULL DEFAULT 'any' CHECK (transport IN ('any', 'udp', 'tcp', 'tls', 'wss')),
  -- In order of preference; never empty.
  allowed_codecs       text[]      NOT NULL DEFAULT '{OPUS,G722,PCMA,PCMU}' CHECK (cardinality(allowed_codecs) BETWEEN 1 AND 16),
  -- Calls at the same time, made and received together; 0 means no limit.
  max_concurrent_calls integer     NOT NULL DEFAULT 2 CHECK (max_concurrent_calls BETWEEN 0 AND 1000),
  -- Shown to the PSTN where the trunk's policy is 'extension'; E.164 with its plus sign.
  outbound_caller_id   text        CHECK (outbound_caller_id ~ '^\+[1-9][0-9]{6,14}$'),
  status               text        NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'deleted')),
  -- Argon2id in the PHC string form: tells whether a repeated request carries the same password. Never used for SIP.
  password_hash        text        NOT NULL CHECK (password_hash LIKE '$argon2id$%'),
  -- RFC 8760: H(sip_username:realm:password), sealed; associated data is tenant | username | realm | algorithm.
  ha1_md5_sealed       bytea       NOT NULL,
  ha1_sha256_sealed    bytea       NOT NULL,
  ha1_key_id           text        NOT NULL,
  w3_extension_id      uuid,
  created_at           timestamptz NOT NULL DEFAULT now(),
  updated_at           timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, domain_id) REFERENCES edgvoip.sip_domains (tenant_id, id)
);
CREATE INDEX sip_extensions_domain_idx ON edgvoip.sip_extensions (tenant_id, domain_id, extension) WHERE status <> 'deleted';
-- A tenant's extensions by number, page by page.
CREATE INDEX sip_extensions_list_idx ON edgvoip.sip_extensions (tenant_id, extension, id);
CREATE INDEX sip_extensions_w3_idx ON edgvoip.sip_extensions (tenant_id, w3_extension_id) WHERE w3_extension_id IS NOT NULL;

-- Every name that an extension answers to in its domain: its number and its SIP username. One primary key makes both
-- unique together, so no username can shadow another extension's number, and one index serves every lookup by name.
-- Kept by the trigger below; nobody else writes here.
CREATE TABLE edgvoip.sip_names (
  tenant_id    uuid NOT NULL,
  domain_id    uuid NOT NULL,
  name         text NOT NULL,
  extension_id uuid NOT NULL,
  -- The id rides along, so that a lookup needs no page of the table itself.
  PRIMARY KEY (tenant_id, domain_id, name) INCLUDE (extension_id),
  FOREIGN KEY (tenant_id, extension_id) REFERENCES edgvoip.sip_extensions (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX sip_names_extension_idx ON edgvoip.sip_names (tenant_id, extension_id);

CREATE FUNCTION edgvoip.keep_sip_names() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    IF (OLD.extension, lower(OLD.sip_username COLLATE "C"), OLD.domain_id, OLD.status = 'deleted')
       IS NOT DISTINCT FROM (NEW.extension, lower(NEW.sip_username COLLATE "C"), NEW.domain_id, NEW.status = 'deleted') THEN
      RETURN NULL;
    END IF;
    DELETE FROM edgvoip.sip_names WHERE tenant_id = OLD.tenant_id AND extension_id = OLD.id;
  END IF;
  IF NEW.status <> 'deleted' THEN
    INSERT INTO edgvoip.sip_names (tenant_id, domain_id, name, extension_id)
    SELECT DISTINCT NEW.tenant_id, NEW.domain_id, n, NEW.id
      FROM unnest(ARRAY[NEW.extension, lower(NEW.sip_username COLLATE "C")]) AS n;
  END IF;
  RETURN NULL;
END
$$;
CREATE TRIGGER keep_sip_names AFTER INSERT OR UPDATE ON edgvoip.sip_extensions
  FOR EACH ROW EXECUTE FUNCTION edgvoip.keep_sip_names();

-- Which stores of W3 may use an extension. Extensions belong to the tenant; this is access, not ownership.
CREATE TABLE edgvoip.voip_extension_store_access (
  tenant_id    uuid NOT NULL,
  extension_id uuid NOT NULL,
  store_id     uuid NOT NULL,
  PRIMARY KEY (tenant_id, extension_id, store_id),
  FOREIGN KEY (tenant_id, extension_id) REFERENCES edgvoip.sip_extensions (tenant_id, id) ON DELETE CASCADE
);

-- A trunk: a carrier's access for one tenant. The FreeSWITCH gateway is named after its id.
CREATE TABLE edgvoip.sip_trunks (
  tenant_id             uuid        NOT NULL REFERENCES edgvoip.tenants (id),
  id                    uuid        NOT NULL,
  store_id              uuid,
  name                  text        NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
  provider              text        NOT NULL DEFAULT '' CHECK (length(provider) <= 64),
  host                  text        NOT NULL CHECK (length(host) BETWEEN 1 AND 253),
  port                  integer     NOT NULL DEFAULT 5060 CHECK (port BETWEEN 1 AND 65535),
  protocol              text        NOT NULL DEFAULT 'udp' CHECK (protocol IN ('udp', 'tcp', 'tls')),
  -- Calls at the same time, both directions together; 0 means no limit.
  max_channels          integer     NOT NULL DEFAULT 30 CHECK (max_channels BETWEEN 0 AND 100000),
  -- Outbound calls try active trunks from the lowest number up; equal numbers in order of id.
  priority              integer     NOT NULL DEFAULT 100 CHECK (priority BETWEEN 0 AND 1000000),
  status                text        NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'disabled', 'deleted')),
  -- Where the carrier's calls come from; empty means the host, if that is an address.
  source_addresses      cidr[]      NOT NULL DEFAULT '{}',
  -- Registration at the carrier; without it the carrier knows us by address.
  register              boolean     NOT NULL DEFAULT false,
  username              text        CHECK (length(username) BETWEEN 1 AND 128),
  password_sealed       bytea,
  password_key_id       text,
  -- 'trunk': caller_id_number for everyone; 'extension': the extension's own number where it has one;
  -- 'withheld': caller_id_number for the carrier, hidden from the called party.
  caller_id_policy      text        NOT NULL DEFAULT 'trunk' CHECK (caller_id_policy IN ('trunk', 'extension', 'withheld')),
  caller_id_number      text        CHECK (caller_id_number ~ '^\+[1-9][0-9]{6,14}$'),
  -- AI voice agent: who answers, when, and the extension that takes the call in every other case.
  ai_agent_ref          text        CHECK (length(ai_agent_ref) <= 128),
  ai_time_policy        jsonb,
  ai_failover_extension text        CHECK (ai_failover_extension ~ '^[0-9]{2,12}$'),
  created_at            timestamptz NOT NULL DEFAULT now(),
  updated_at            timestamptz NOT NULL DEFAULT now(),
  -- For people; FreeSWITCH does not read it.
  description text NOT NULL DEFAULT '' CHECK (length(description) <= 256),
  -- Where requests are sent in the place of the host: host or host:port (RFC 3261, 16.6); empty means the host itself.
  proxy text NOT NULL DEFAULT '' CHECK (length(proxy) <= 260),
  -- How the carrier wants called numbers: +39061234, 39061234, 0039061234.
  number_format text NOT NULL DEFAULT 'plus' CHECK (number_format IN ('plus', 'digits', 'zeros')),
  -- Put before every called number.
  tech_prefix text NOT NULL DEFAULT '' CHECK (tech_prefix ~ '^[0-9*#]{0,16}$'),
  -- The beginnings of the E.164 numbers that the trunk carries, without the plus sign; empty means all numbers.
  prefixes text[] NOT NULL DEFAULT '{}' CHECK (cardinality(prefixes) <= 256),
  -- What calls of the trunk offer, in order of preference; empty means what the switch offers.
  codecs text[] NOT NULL DEFAULT '{}' CHECK (cardinality(codecs) <= 16),
  -- OPTIONS to the carrier every so many seconds; 0 means none.
  ping_seconds integer NOT NULL DEFAULT 0 CHECK (ping_seconds = 0 OR ping_seconds BETWEEN 5 AND 3600),
  -- Counts the changes of what FreeSWITCH reads as the gateway. Kept by the trigger below.
  gateway_revision bigint NOT NULL DEFAULT 1,
  PRIMARY KEY (tenant_id, id),
  -- The gateway's name and the channel counter on a switch, both global there.
  CONSTRAINT sip_trunks_id_key UNIQUE (id),
  CHECK ((password_sealed IS NULL) = (password_key_id IS NULL)),
  CHECK (NOT register OR (username IS NOT NULL AND password_sealed IS NOT NULL))
);
CREATE INDEX sip_trunks_order_idx ON edgvoip.sip_trunks (tenant_id, priority, id) WHERE status = 'active';

CREATE FUNCTION edgvoip.count_gateway_revisions() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  NEW.gateway_revision := OLD.gateway_revision;
  IF (OLD.host, OLD.port, OLD.protocol, OLD.proxy, OLD.register, OLD.username, OLD.password_sealed, OLD.ping_seconds, OLD.status)
     IS DISTINCT FROM (NEW.host, NEW.port, NEW.protocol, NEW.proxy, NEW.register, NEW.username, NEW.password_sealed, NEW.ping_seconds, NEW.status) THEN
    NEW.gateway_revision := OLD.gateway_revision + 1;
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER count_gateway_revisions BEFORE UPDATE ON edgvoip.sip_trunks
  FOR EACH ROW EXECUTE FUNCTION edgvoip.count_gateway_revisions();

-- The DIDs of a trunk (the seed's did_range), as ranges of E.164 numbers without the plus sign. No two ranges may share
-- a number, over all tenants; because of that, the one range that can hold a number is the first that ends at
-- or after it, which sip_trunk_did_ranges_last_idx finds with one descent however many ranges there are.
CREATE TABLE edgvoip.sip_trunk_did_ranges (
  tenant_id    uuid   NOT NULL,
  trunk_id     uuid   NOT NULL,
  first_number bigint NOT NULL CHECK (first_number >= 1000000),
  last_number  bigint NOT NULL CHECK (last_number <= 999999999999999),
  PRIMARY KEY (tenant_id, trunk_id, first_number),
  FOREIGN KEY (tenant_id, trunk_id) REFERENCES edgvoip.sip_trunks (tenant_id, id) ON DELETE CASCADE,
  -- One range is one length of number: 39061000 to 390619999 would be two different plans.
  CHECK (first_number <= last_number AND length(first_number::text) = length(last_number::text)),
  CONSTRAINT sip_trunk_did_ranges_no_overlap EXCLUDE USING gist (int8range(first_number, last_number, '[]') WITH &&)
);
CREATE UNIQUE INDEX sip_trunk_did_ranges_last_idx ON edgvoip.sip_trunk_did_ranges (last_number) INCLUDE (first_number, tenant_id, trunk_id);

-- Secrets that W3 signs and authenticates with, per tenant; two rows may be valid at once while one is being rotated out.
CREATE TABLE edgvoip.integration_secrets (
  tenant_id           uuid        NOT NULL REFERENCES edgvoip.tenants (id),
  id                  uuid        NOT NULL,
  hmac_secret_sealed  bytea       NOT NULL,
  hmac_secret_key_id  text        NOT NULL,
  -- SHA-256 of the bearer token, which is random and long, so a plain hash is enough to look it up by.
  bearer_token_sha256 bytea       NOT NULL UNIQUE CHECK (length(bearer_token_sha256) = 32),
  created_at          timestamptz NOT NULL DEFAULT now(),
  rotated_at          timestamptz,
  expires_at          timestamptz,
  -- To about ten seconds. Shows whether an old secret can go.
  last_used_at        timestamptz,
  PRIMARY KEY (tenant_id, id)
);

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

-- Who did what, when; before and after without secrets. The API's role may insert and read, not change or delete.
CREATE TABLE edgvoip.audit_log (
  tenant_id      uuid        NOT NULL,
  id             bigint      GENERATED ALWAYS AS IDENTITY,
  at             timestamptz NOT NULL DEFAULT now(),
  actor          text        NOT NULL CHECK (length(actor) BETWEEN 1 AND 128),
  action         text        NOT NULL CHECK (action ~ '^[a-z_]+\.[a-z_]+$'),
  subject_id     uuid        NOT NULL,
  correlation_id text        NOT NULL DEFAULT '',
  before         jsonb,
  after          jsonb,
  PRIMARY KEY (tenant_id, id)
);
CREATE INDEX audit_log_subject_idx ON edgvoip.audit_log (tenant_id, subject_id, id);
-- The audit log of all tenants, newest first.
CREATE INDEX audit_log_id_idx ON edgvoip.audit_log (id);
-- What one request or command did, and what was done when.
CREATE INDEX audit_log_correlation_idx ON edgvoip.audit_log (correlation_id, id) WHERE correlation_id <> '';
CREATE INDEX audit_log_at_idx ON edgvoip.audit_log (at);

-- Answers to writes that carried an Idempotency-Key, kept in the transaction of the write.
CREATE TABLE edgvoip.idempotency_keys (
  tenant_id       uuid        NOT NULL REFERENCES edgvoip.tenants (id),
  key             text        NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
  request_sha256  bytea       NOT NULL CHECK (length(request_sha256) = 32),
  response_status integer     NOT NULL CHECK (response_status BETWEEN 200 AND 599),
  response_body   jsonb       NOT NULL,
  created_at      timestamptz NOT NULL DEFAULT now(),
  expires_at      timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, key)
);
CREATE INDEX idempotency_keys_expiry_idx ON edgvoip.idempotency_keys (expires_at);

-- The switches: their event sockets. They belong to no tenant, and are few: a reference table.
CREATE TABLE edgvoip.switch_nodes (
  id              uuid        PRIMARY KEY,
  name            text        NOT NULL CHECK (name ~ '^[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?$'),
  -- host:port of mod_event_socket.
  address         text        NOT NULL CHECK (length(address) BETWEEN 3 AND 260),
  password_sealed bytea       NOT NULL,
  password_key_id text        NOT NULL,
  -- Whether xmlcurl lets this switch keep users in its own cache (SWITCH_CACHES_USERS), which must then be told of every change.
  caches_users    boolean     NOT NULL DEFAULT false,
  status          text        NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'disabled')),
  created_at      timestamptz NOT NULL DEFAULT now(),
  updated_at      timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT switch_nodes_name_key UNIQUE (name)
);
CREATE FUNCTION edgvoip.tell_nodes() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
  PERFORM pg_notify('edgvoip_jobs', '');
  RETURN NULL;
END
$$;
CREATE TRIGGER tell_nodes AFTER INSERT OR UPDATE OR DELETE ON edgvoip.switch_nodes
  FOR EACH STATEMENT EXECUTE FUNCTION edgvoip.tell_nodes();

-- Work that a write causes (a webhook, a switch that must obey), committed with it. A worker leases a row; if it dies, the row
-- falls due again. Rows of one subject are worked in order of id.
CREATE TABLE edgvoip.jobs (
  tenant_id      uuid        NOT NULL,
  id             bigint      GENERATED ALWAYS AS IDENTITY,
  kind           text        NOT NULL CHECK (kind ~ '^[a-z_]+(\.[a-z_]+)*$'),
  subject        text        NOT NULL,
  payload        jsonb       NOT NULL,
  state          text        NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'leased', 'done', 'dead')),
  attempts       integer     NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  run_at         timestamptz NOT NULL DEFAULT now(),
  correlation_id text        NOT NULL DEFAULT '',
  last_error     text,
  created_at     timestamptz NOT NULL DEFAULT now(),
  finished_at    timestamptz,
  -- The switch that must do it; null for what no switch does.
  node_id        uuid        REFERENCES edgvoip.switch_nodes (id) ON DELETE CASCADE,
  PRIMARY KEY (tenant_id, id)
);
CREATE INDEX jobs_due_idx ON edgvoip.jobs (run_at, id) WHERE state IN ('pending', 'leased');
CREATE INDEX jobs_subject_idx ON edgvoip.jobs (tenant_id, subject, id) WHERE state IN ('pending', 'leased');

-- A switch has its own jobs, and works them in order of id.
CREATE INDEX jobs_node_idx ON edgvoip.jobs (node_id, id) WHERE state IN ('pending', 'leased');
-- What each switch has still to do, and what was given up: few rows beside those that are done.
CREATE INDEX jobs_open_idx ON edgvoip.jobs (node_id) WHERE node_id IS NOT NULL AND state <> 'done';
-- What each switch was last told of a subject.
CREATE INDEX jobs_convergence_idx ON edgvoip.jobs (tenant_id, subject, node_id, id) WHERE node_id IS NOT NULL;
-- The users of each tenant of whom a switch has to hear, the oldest first: counted when there is one more.
CREATE INDEX jobs_users_idx ON edgvoip.jobs (node_id, tenant_id, id) WHERE kind = 'switch.user' AND state = 'pending';
CREATE TRIGGER tell_jobs AFTER INSERT ON edgvoip.jobs FOR EACH STATEMENT EXECUTE FUNCTION edgvoip.tell_nodes();

-- Writes a job for each switch, also for one that is disabled, which is told when it is back; of switches that cache users only,
-- if so asked. A switch that is away for weeks gathers no more than a job for each thing that it must forget: where as much waits
-- already, and for a minute or for a disabled switch, there is no second one. What waits is then locked until the change is committed:
-- nobody can do it before, and leave the change out.
-- Users that are deleted and created again and again are as many things to forget. Where a thousand jobs about users of the tenant wait
-- like that, the next one is to forget everybody of the user's domain, marked "users", and stands for all later ones.
CREATE FUNCTION edgvoip.ask_switches(tenant uuid, asked text, about uuid, domain uuid, task jsonb, caching boolean)
  RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
  everybody CONSTANT jsonb := jsonb_build_object('realm', task->'realm', 'users', true);
  node               record;
  thousandth         timestamptz;
BEGIN
  FOR node IN
    -- Before its jobs, in the order of whoever removes a switch.
    SELECT id, CASE status WHEN 'disabled' THEN 'infinity' ELSE now() - interval '1 minute' END AS before
      FROM edgvoip.switch_nodes WHERE NOT caching OR caches_users FOR KEY SHARE
  LOOP
    -- Found by subject: "=" would let an index of the switch be taken, by a plan from a time when it had few jobs.
    PERFORM FROM edgvoip.jobs
      WHERE tenant_id = tenant AND subject = about::text AND node_id IS NOT DISTINCT FROM node.id AND state = 'pending'
        AND created_at < node.before AND kind = asked AND payload @> CASE task->>'revoked' WHEN 'false' THEN task - 'revoked' ELSE task END
        FOR SHARE;
    CONTINUE WHEN FOUND;
    IF asked = 'switch.user' THEN
      PERFORM FROM edgvoip.jobs
        WHERE tenant_id = tenant AND subject = domain::text AND node_id IS NOT DISTINCT FROM node.id AND state = 'pending'
          AND created_at < node.before AND payload @> everybody
          FOR SHARE;
      CONTINUE WHEN FOUND;
      -- Of many the thousandth is looked for only if the first has waited for long enough, which it mostly has not.
      thousandth := NULL;
      PERFORM FROM (
        SELECT created_at FROM edgvoip.jobs
         WHERE node_id = node.id AND tenant_id = tenant AND kind = 'switch.user' AND state = 'pending' ORDER BY id LIMIT 1) AS first
        WHERE created_at < node.before;
      IF FOUND THEN
        SELECT created_at INTO thousandth FROM edgvoip.jobs
         WHERE node_id = node.id AND tenant_id = tenant AND kind = 'switch.user' AND state = 'pending' ORDER BY id OFFSET 999 LIMIT 1;
      END IF;
      -- Once: each one drops every registration of the domain.
      IF thousandth < node.before AND NOT EXISTS (
        SELECT FROM edgvoip.jobs
         WHERE tenant_id = tenant AND subject = domain::text AND node_id IS NOT DISTINCT FROM node.id AND state = 'pending' AND payload @> everybody)
      THEN
        INSERT INTO edgvoip.jobs (tenant_id, node_id, kind, subject, payload, correlation_id)
        VALUES (tenant, node.id, 'switch.domain', domain, everybody, coalesce(current_setting('edgvoip.correlation_id', true), ''));
        CONTINUE;
      END IF;
    END IF;
    INSERT INTO edgvoip.jobs (tenant_id, node_id, kind, subject, payload, correlation_id)
    VALUES (tenant, node.id, asked, about, task, coalesce(current_setting('edgvoip.correlation_id', true), ''));
  END LOOP;
END
$$;

-- What a change of a user, a domain or a tenant asks of every switch: to forget the registrations that the change forbids, and
-- where it caches users, to forget the user. One job a switch, in the transaction of the change, whoever makes it. Who made it
-- may say in edgvoip.correlation_id by what request.
CREATE FUNCTION edgvoip.tell_switches_of_user() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  revoked boolean := true;
  works   boolean;
BEGIN
  -- Of a suspended tenant the switches have been asked to forget everything, and learn nothing until it is active again. Whoever
  -- changes that waits for this change or lets it wait, so that what the switches are asked then comes after it.
  SELECT status = 'active' INTO works FROM edgvoip.tenants WHERE id = OLD.tenant_id FOR SHARE;
  IF works IS NOT TRUE THEN
    RETURN NULL;
  END IF;
  IF TG_OP = 'UPDATE' THEN
    revoked := OLD.status = 'active' AND NEW.status <> 'active'
      OR (OLD.domain_id, OLD.extension, OLD.sip_username, OLD.transport, OLD.ha1_md5_sealed, OLD.ha1_sha256_sealed)
         IS DISTINCT FROM (NEW.domain_id, NEW.extension, NEW.sip_username, NEW.transport, NEW.ha1_md5_sealed, NEW.ha1_sha256_sealed);
  END IF;
  PERFORM edgvoip.ask_switches(OLD.tenant_id, 'switch.user', OLD.id, d.id,
      jsonb_build_object('realm', d.realm, 'number', OLD.extension, 'username', OLD.sip_username, 'revoked', revoked), NOT revoked)
     FROM edgvoip.sip_domains d
    WHERE d.tenant_id = OLD.tenant_id AND d.id = OLD.domain_id;
  RETURN NULL;
END
$$;
CREATE TRIGGER tell_switches AFTER UPDATE OR DELETE ON edgvoip.sip_extensions
  FOR EACH ROW EXECUTE FUNCTION edgvoip.tell_switches_of_user();

CREATE FUNCTION edgvoip.tell_switches_of_domain() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
  PERFORM edgvoip.ask_switches(OLD.tenant_id, 'switch.domain', OLD.id, OLD.id, jsonb_build_object('realm', OLD.realm), false);
  RETURN NULL;
END
$$;
CREATE TRIGGER tell_switches_of_updates AFTER UPDATE ON edgvoip.sip_domains FOR EACH ROW
  WHEN ((OLD.status, OLD.realm) IS DISTINCT FROM (NEW.status, NEW.realm)) EXECUTE FUNCTION edgvoip.tell_switches_of_domain();
CREATE TRIGGER tell_switches_of_deletes AFTER DELETE ON edgvoip.sip_domains FOR EACH ROW
  EXECUTE FUNCTION edgvoip.tell_switches_of_domain();

-- What each switch has made of each trunk's gateway, as it said last.
CREATE TABLE edgvoip.trunk_gateways (
  tenant_id        uuid        NOT NULL,
  trunk_id         uuid        NOT NULL,
  node_id          uuid        NOT NULL REFERENCES edgvoip.switch_nodes (id) ON DELETE CASCADE,
  -- The gateway_revision that the switch works with; 0 means that it has no such gateway.
  applied_revision bigint      NOT NULL,
  -- The state of the registration in the switch's own words: REGED, NOREG, TRYING, FAIL_WAIT…; empty if unknown.
  registration     text        NOT NULL DEFAULT '' CHECK (length(registration) <= 32),
  -- What the carrier answers to OPTIONS, in the switch's own words: UP, DOWN; empty if it is not asked.
  ping             text        NOT NULL DEFAULT '' CHECK (length(ping) <= 32),
  -- Why it does not register, or was not applied; empty if nothing is wrong.
  error            text        NOT NULL DEFAULT '' CHECK (length(error) <= 500),
  seen_at          timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, trunk_id, node_id),
  FOREIGN KEY (tenant_id, trunk_id) REFERENCES edgvoip.sip_trunks (tenant_id, id) ON DELETE CASCADE
);

-- What a change of a trunk asks of every switch: its gateway added, replaced or removed, and the lists of carriers'
-- addresses read anew. A change that FreeSWITCH does not see asks nothing. old_there and new_there say whether the gateway
-- was and is to be there.
CREATE FUNCTION edgvoip.tell_switches_about_trunk(t edgvoip.sip_trunks, old_there boolean, new_there boolean, changed boolean, acl boolean)
  RETURNS void LANGUAGE sql SET search_path = pg_catalog AS $$
  INSERT INTO edgvoip.jobs (tenant_id, node_id, kind, subject, payload, correlation_id)
  SELECT t.tenant_id, n.id, 'switch.trunk', t.id,
         jsonb_build_object('trunk', t.id, 'revision', t.gateway_revision, 'acl', acl,
           'gateway', CASE WHEN new_there AND (changed OR NOT old_there) THEN 'replace' WHEN old_there AND NOT new_there THEN 'remove' ELSE 'keep' END),
         coalesce(current_setting('edgvoip.correlation_id', true), '')
    FROM edgvoip.switch_nodes n
   WHERE n.status = 'active' AND (acl OR old_there <> new_there OR new_there AND changed)
$$;

CREATE FUNCTION edgvoip.tell_switches_of_trunk() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  -- Switches are told of trunks of active tenants only.
  works     boolean := EXISTS (SELECT FROM edgvoip.tenants WHERE id = coalesce(NEW.tenant_id, OLD.tenant_id) AND status = 'active');
  old_there boolean := TG_OP <> 'INSERT' AND works AND OLD.status = 'active';
  new_there boolean := TG_OP <> 'DELETE' AND works AND NEW.status = 'active';
BEGIN
  IF TG_OP = 'UPDATE' THEN
    PERFORM edgvoip.tell_switches_about_trunk(NEW, old_there, new_there, OLD.gateway_revision <> NEW.gateway_revision,
      old_there <> new_there OR new_there AND (OLD.host, OLD.source_addresses) IS DISTINCT FROM (NEW.host, NEW.source_addresses));
  ELSIF TG_OP = 'INSERT' THEN
    PERFORM edgvoip.tell_switches_about_trunk(NEW, false, new_there, true, new_there);
  ELSE
    PERFORM edgvoip.tell_switches_about_trunk(OLD, old_there, false, true, old_there);
  END IF;
  RETURN NULL;
END
$$;
CREATE TRIGGER tell_switches AFTER INSERT OR UPDATE OR DELETE ON edgvoip.sip_trunks
  FOR EACH ROW EXECUTE FUNCTION edgvoip.tell_switches_of_trunk();

CREATE FUNCTION edgvoip.tell_switches_of_tenant() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
  PERFORM edgvoip.ask_switches(d.tenant_id, 'switch.domain', d.id, d.id, jsonb_build_object('realm', d.realm), false)
     FROM edgvoip.sip_domains d
    WHERE d.status <> 'deleted' AND d.tenant_id = OLD.id;
  PERFORM edgvoip.tell_switches_about_trunk(t, OLD.status = 'active', NEW.status = 'active', false, true)
     FROM edgvoip.sip_trunks t
    WHERE t.tenant_id = OLD.id AND t.status = 'active' AND (OLD.status = 'active') <> (NEW.status = 'active');
  RETURN NULL;
END
$$;
CREATE TRIGGER tell_switches AFTER UPDATE ON edgvoip.tenants FOR EACH ROW
  WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION edgvoip.tell_switches_of_tenant();

-- Where W3 takes a tenant's events.
CREATE TABLE edgvoip.webhook_endpoints (
  tenant_id  uuid        PRIMARY KEY REFERENCES edgvoip.tenants (id),
  -- Scheme, host, port and leading path: /api/webhooks/voip/… is put behind it.
  base_url   text        NOT NULL CHECK (length(base_url) BETWEEN 10 AND 512),
  -- A paused endpoint is sent nothing; its events wait.
  status     text        NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'paused')),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

-- Events for W3, written in the transaction of what they tell. Of each subject one event at a time is in front, the oldest
-- that is open: only that one is sent, so order is kept, and a claim looks at no event that has to wait for another.
--
--   pending ──claimed──► leased ──► delivered
--      ▲                   │ │
--      └──failed, or the ◄─┘ └──failed too long──► dead ──replayed──► pending
--         lease ran out                              └──► discarded
CREATE TABLE edgvoip.webhook_events (
  tenant_id        uuid        NOT NULL,
  id               bigint      GENERATED ALWAYS AS IDENTITY,
  -- X-Idempotency-Key: the same for every attempt, for ever.
  key              uuid        NOT NULL,
  kind             text        NOT NULL CHECK (kind IN ('trunk.created', 'trunk.updated', 'trunk.deleted', 'cdr')),
  -- The trunk or the call: events of one subject arrive in order.
  subject          uuid        NOT NULL,
  -- The body, exactly as it is sent.
  payload          text        NOT NULL,
  state            text        NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'leased', 'delivered', 'dead', 'discarded')),
  -- Whether it is its subject's oldest that is open. Kept by the triggers below.
  front            boolean     NOT NULL DEFAULT false,
  attempts         integer     NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  due_at           timestamptz NOT NULL DEFAULT now(),
  first_attempt_at timestamptz,
  last_error       text        CHECK (length(last_error) <= 500),
  correlation_id   text        NOT NULL DEFAULT '',
  created_at       timestamptz NOT NULL DEFAULT now(),
  finished_at      timestamptz,
  PRIMARY KEY (tenant_id, id)
);
CREATE INDEX webhook_events_due_idx ON edgvoip.webhook_events (tenant_id, due_at, id) WHERE front AND state IN ('pending', 'leased');
CREATE INDEX webhook_events_subject_idx ON edgvoip.webhook_events (tenant_id, subject, id) WHERE state IN ('pending', 'leased');
-- What was told of a call, for erasure.
CREATE INDEX webhook_events_told_idx ON edgvoip.webhook_events (tenant_id, subject);
CREATE INDEX webhook_events_dead_idx ON edgvoip.webhook_events (tenant_id, id) WHERE state = 'dead';
CREATE INDEX webhook_events_finished_idx ON edgvoip.webhook_events (finished_at) WHERE state IN ('delivered', 'discarded');

-- Whoever adds an event of a subject and whoever ends one wait for each other, so that exactly one of the open ones is in
-- front.
CREATE FUNCTION edgvoip.line_up_event() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(NEW.subject::text, 4));
  NEW.front := NOT EXISTS (SELECT FROM edgvoip.webhook_events
    WHERE tenant_id = NEW.tenant_id AND subject = NEW.subject AND state IN ('pending', 'leased') AND (TG_OP = 'INSERT' OR id <> NEW.id));
  RETURN NEW;
END
$$;
CREATE TRIGGER line_up BEFORE INSERT ON edgvoip.webhook_events FOR EACH ROW EXECUTE FUNCTION edgvoip.line_up_event();
-- A dead event that is replayed goes behind those that are open.
CREATE TRIGGER line_up_again BEFORE UPDATE ON edgvoip.webhook_events FOR EACH ROW
  WHEN (OLD.state NOT IN ('pending', 'leased') AND NEW.state IN ('pending', 'leased')) EXECUTE FUNCTION edgvoip.line_up_event();

CREATE FUNCTION edgvoip.move_up_events() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(OLD.subject::text, 4));
  UPDATE edgvoip.webhook_events SET front = true
   WHERE tenant_id = OLD.tenant_id AND id = (SELECT min(id) FROM edgvoip.webhook_events
           WHERE tenant_id = OLD.tenant_id AND subject = OLD.subject AND state IN ('pending', 'leased'))
     AND NOT front;
  RETURN NULL;
END
$$;
CREATE TRIGGER move_up AFTER UPDATE ON edgvoip.webhook_events FOR EACH ROW
  WHEN (OLD.front AND OLD.state IN ('pending', 'leased') AND NEW.state NOT IN ('pending', 'leased')) EXECUTE FUNCTION edgvoip.move_up_events();
CREATE TRIGGER move_up_behind_deleted AFTER DELETE ON edgvoip.webhook_events FOR EACH ROW
  WHEN (OLD.front AND OLD.state IN ('pending', 'leased')) EXECUTE FUNCTION edgvoip.move_up_events();

CREATE FUNCTION edgvoip.tell_webhooks() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
  PERFORM pg_notify('edgvoip_webhooks', '');
  RETURN NULL;
END
$$;
CREATE TRIGGER tell_webhooks AFTER INSERT ON edgvoip.webhook_events FOR EACH STATEMENT EXECUTE FUNCTION edgvoip.tell_webhooks();
CREATE TRIGGER tell_webhooks AFTER INSERT OR UPDATE OR DELETE ON edgvoip.webhook_endpoints FOR EACH STATEMENT EXECUTE FUNCTION edgvoip.tell_webhooks();

-- What came of each attempt to send an event.
CREATE TABLE edgvoip.webhook_attempts (
  tenant_id   uuid        NOT NULL,
  event_id    bigint      NOT NULL,
  attempt     integer     NOT NULL,
  at          timestamptz NOT NULL DEFAULT now(),
  duration_ms integer     NOT NULL,
  -- HTTP status; null if there was no answer.
  status      integer,
  error       text        CHECK (length(error) <= 500),
  PRIMARY KEY (tenant_id, event_id, attempt),
  FOREIGN KEY (tenant_id, event_id) REFERENCES edgvoip.webhook_events (tenant_id, id) ON DELETE CASCADE
);

-- The ordered list of what changed, for read models: written by the triggers below, so that no writer can forget. Rows are
-- small and pruned once every reader has had time to see them. Numbers are given before their transactions commit, so a
-- reader that sees a number missing looks for it again until every transaction is over that could hold it.
CREATE TABLE edgvoip.changes (
  tenant_id uuid        NOT NULL,
  id        bigint      GENERATED ALWAYS AS IDENTITY,
  -- The writer's transaction. With id it tells a row apart from another that has the same id after a failover.
  tx        xid8        NOT NULL DEFAULT pg_current_xact_id(),
  at        timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- 'everything' is a table emptied at once; tenant_id is then zero.
  subject   text        NOT NULL CHECK (subject IN ('tenant', 'domain', 'extension', 'trunk', 'everything')),
  -- The domain of an extension.
  domain_id uuid,
  -- Every name that the change touches, old and new: of an extension its number and username, of a domain its realm.
  names     text[]      NOT NULL DEFAULT '{}',
  -- The oldest transaction that was not over then: all before it had committed what they had to tell. Null in rows of before.
  oldest    xid8        DEFAULT pg_snapshot_xmin(pg_current_snapshot()),
  PRIMARY KEY (tenant_id, id)
);
CREATE INDEX changes_id_idx ON edgvoip.changes (id);

-- One function for all tables that a lookup reads, called once a statement. It runs as the owner: whoever may write one of
-- these tables needs no right to tell of it.
CREATE FUNCTION edgvoip.tell_changes() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
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
DO $$
DECLARE
  name text;
  told text;
BEGIN
  FOREACH name IN ARRAY ARRAY['tenants', 'sip_domains', 'sip_extensions', 'sip_names', 'sip_trunks', 'sip_trunk_did_ranges'] LOOP
    -- The names that an extension's own change takes along are told with it.
    told := CASE name WHEN 'sip_names' THEN 'WHEN (pg_trigger_depth() = 0)' ELSE '' END;
    EXECUTE format('CREATE TRIGGER tell_inserts AFTER INSERT ON edgvoip.%I
      REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT %s EXECUTE FUNCTION edgvoip.tell_changes()', name, told);
    EXECUTE format('CREATE TRIGGER tell_updates AFTER UPDATE ON edgvoip.%I
      REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT %s EXECUTE FUNCTION edgvoip.tell_changes()', name, told);
    EXECUTE format('CREATE TRIGGER tell_deletes AFTER DELETE ON edgvoip.%I
      REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT %s EXECUTE FUNCTION edgvoip.tell_changes()', name, told);
    EXECUTE format('CREATE TRIGGER tell_truncates AFTER TRUNCATE ON edgvoip.%I
      FOR EACH STATEMENT EXECUTE FUNCTION edgvoip.tell_changes()', name);
  END LOOP;
END
$$;

-- Removes changes that everybody could see for longer than "keep": a transaction may commit long after it wrote what it has to
-- tell, and a row as old as that says which were over. The newest stay, by which readers know where they are. It runs as the
-- owner, so that each reader can call it; of several at once one works. Returns the number removed, at most 20000, so that a call ends
-- within its caller's statement timeout: a caller that gets 20000 calls again.
CREATE FUNCTION edgvoip.prune_changes(keep interval) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
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

-- When somebody last wrote on the primary, in one row: integration-api every two seconds. A replica on which it grows old hears
-- nothing of its primary, which the changes cannot tell: a primary on which nothing changes writes none. No reader is told of it.
CREATE TABLE edgvoip.heartbeat (
  one boolean     PRIMARY KEY DEFAULT true CHECK (one),
  at  timestamptz NOT NULL
);

-- Call records, as switches posted them, until they are read. A record that cannot be read stays, with the reason. They
-- belong to no tenant before that: a reference table.
CREATE TABLE edgvoip.cdr_documents (
  id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  -- Of the body: a record that is sent again is kept once.
  sha256       bytea       NOT NULL CHECK (length(sha256) = 32),
  -- The channel's UUID as the sender named it; null if he named none.
  leg_id       uuid,
  source       text        NOT NULL CHECK (source IN ('post', 'sweep')),
  -- Who sent it: an address, or the file's name.
  sender       text        NOT NULL DEFAULT '' CHECK (length(sender) <= 260),
  content_type text        NOT NULL DEFAULT '' CHECK (length(content_type) <= 128),
  body         bytea       NOT NULL,
  -- new: not read yet. unreadable: no call record. unassigned: a call record of no tenant of ours.
  state        text        NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'unreadable', 'unassigned')),
  attempts     integer     NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  due_at       timestamptz NOT NULL DEFAULT now(),
  error        text        CHECK (length(error) <= 500),
  received_at  timestamptz NOT NULL DEFAULT now(),
  -- The channel without whose leg this called one makes no call record: that channel may still be up. Null if there is none.
  awaits       uuid,
  CONSTRAINT cdr_documents_sha256_key UNIQUE (sha256)
);
CREATE INDEX cdr_documents_new_idx ON edgvoip.cdr_documents (due_at, id) WHERE state = 'new';
CREATE INDEX cdr_documents_awaits_idx ON edgvoip.cdr_documents (awaits) WHERE awaits IS NOT NULL;
CREATE INDEX cdr_documents_kept_idx ON edgvoip.cdr_documents (state, id) WHERE state <> 'new';

-- Channels that a switch was seen to end, until their record comes: the second witness.
CREATE TABLE edgvoip.cdr_sightings (
  leg_id  uuid        PRIMARY KEY,
  node_id uuid        REFERENCES edgvoip.switch_nodes (id) ON DELETE SET NULL,
  seen_at timestamptz NOT NULL DEFAULT now(),
  -- The event CHANNEL_HANGUP_COMPLETE.
  event   jsonb       NOT NULL
);
CREATE INDEX cdr_sightings_seen_idx ON edgvoip.cdr_sightings (seen_at);

-- Call records: one row a call in cdr, one row a leg in cdr_legs, both partitioned by month of start. cdr is made of the
-- legs anew whenever one of them comes.
CREATE TABLE edgvoip.cdr (
  tenant_id       uuid        NOT NULL,
  -- UUID of the calling channel.
  call_id         uuid        NOT NULL,
  store_id        uuid,
  "from"          text        NOT NULL,
  "to"            text        NOT NULL,
  direction       text        NOT NULL CHECK (direction IN ('inbound', 'outbound', 'internal')),
  start_time      timestamptz NOT NULL,
  answer_time     timestamptz,
  end_time        timestamptz,
  -- Seconds from start to end, and from answer to end.
  duration        integer     NOT NULL DEFAULT 0 CHECK (duration >= 0),
  billsec         integer     NOT NULL DEFAULT 0 CHECK (billsec >= 0),
  disposition     text        NOT NULL CHECK (disposition IN ('answered', 'no_answer', 'busy', 'cancelled', 'refused', 'failed')),
  hangup_cause    text        NOT NULL DEFAULT '',
  -- The carrier that the call came from or went to, and who at our end: null where there is none.
  trunk_id        uuid,
  caller_id       uuid,
  callee_id       uuid,
  -- Number of who took it at last, and of whom it was handed on to; empty if nobody.
  answered_by     text        NOT NULL DEFAULT '',
  transferred_to  text        NOT NULL DEFAULT '',
  -- The other call of an attended transfer.
  related_call_id uuid,
  -- How the dialplan decided: its route, and why.
  route           text        NOT NULL DEFAULT '',
  reason          text        NOT NULL DEFAULT '',
  ai_agent_ref    text,
  -- Where the recording is, relative to the directory of recordings; null if the call is not recorded.
  recording_path  text        CHECK (length(recording_path) <= 260),
  recording_state text        NOT NULL DEFAULT 'none' CHECK (recording_state IN ('none', 'expected', 'ready', 'lost', 'removed')),
  recording_url   text,
  -- Whether a leg was put together from events of the switch, as its record did not come.
  reconstructed   boolean     NOT NULL DEFAULT false,
  -- Whether numbers were erased on a person's request.
  erased          boolean     NOT NULL DEFAULT false,
  -- Counts what was told of the call; the event to W3 carries it.
  revision        integer     NOT NULL DEFAULT 1,
  -- The calling leg's record.
  raw             jsonb       NOT NULL,
  created_at      timestamptz NOT NULL DEFAULT now(),
  updated_at      timestamptz NOT NULL DEFAULT now(),
  -- The call that this one turned out to be a part of, as a leg that came late says. Its record is then empty, and in no list.
  absorbed_by     uuid,
  PRIMARY KEY (tenant_id, start_time, call_id)
) PARTITION BY RANGE (start_time);
CREATE INDEX cdr_call_idx ON edgvoip.cdr (tenant_id, call_id);
-- The records in which a number stands, newest first: one for each place in which it may stand. Most calls are taken by who was
-- called and handed on to nobody, so that the last two hold few of them.
CREATE INDEX cdr_from_idx ON edgvoip.cdr (tenant_id, ltrim("from", '+'), start_time DESC, call_id DESC);
CREATE INDEX cdr_to_idx ON edgvoip.cdr (tenant_id, ltrim("to", '+'), start_time DESC, call_id DESC);
CREATE INDEX cdr_answered_by_idx ON edgvoip.cdr (tenant_id, ltrim(answered_by, '+'), start_time DESC, call_id DESC)
  WHERE answered_by <> '' AND answered_by <> "to";
CREATE INDEX cdr_transferred_to_idx ON edgvoip.cdr (tenant_id, ltrim(transferred_to, '+'), start_time DESC, call_id DESC)
  WHERE transferred_to <> '';
-- Files that are waited for, that did not come, and that are to be removed.
CREATE INDEX cdr_recording_idx ON edgvoip.cdr (recording_state, start_time, call_id)
  WHERE recording_path IS NOT NULL AND recording_state IN ('expected', 'lost', 'removed');
CREATE TABLE edgvoip.cdr_default PARTITION OF edgvoip.cdr DEFAULT;

CREATE TABLE edgvoip.cdr_legs (
  tenant_id     uuid        NOT NULL,
  leg_id        uuid        NOT NULL,
  call_id       uuid        NOT NULL,
  start_time    timestamptz NOT NULL,
  end_time      timestamptz,
  -- Put together from the event of the switch, as the record did not come.
  reconstructed boolean     NOT NULL DEFAULT false,
  raw           jsonb       NOT NULL,
  created_at    timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, start_time, leg_id)
) PARTITION BY RANGE (start_time);
CREATE INDEX cdr_legs_call_idx ON edgvoip.cdr_legs (tenant_id, call_id);
CREATE INDEX cdr_legs_leg_idx ON edgvoip.cdr_legs (leg_id);
CREATE TABLE edgvoip.cdr_legs_default PARTITION OF edgvoip.cdr_legs DEFAULT;

-- A document costs the server a third less to be kept if it is compressed with lz4 rather than with pglz; a server
-- that was built without lz4 keeps pglz. Rows that are there stay as they are.
DO $$
DECLARE
  t regclass;
BEGIN
  FOR t IN SELECT 'edgvoip.cdr_documents'::regclass
           UNION ALL SELECT relid FROM pg_partition_tree('edgvoip.cdr')
           UNION ALL SELECT relid FROM pg_partition_tree('edgvoip.cdr_legs') LOOP
    EXECUTE format('ALTER TABLE %s ALTER COLUMN %s SET COMPRESSION lz4', t, CASE t WHEN 'edgvoip.cdr_documents'::regclass THEN 'body' ELSE 'raw' END);
  END LOOP;
EXCEPTION WHEN feature_not_supported THEN
  RAISE NOTICE 'no lz4 in this server: call records are compressed with pglz';
END
$$;

-- Makes the partitions of the month of "from_day" and of the "months" after it, of both tables. Safe to repeat. A row in a
-- default partition keeps its own month from being made, and no other: move it out first. It runs as the owner, so that the API can call it
-- on a schedule.
CREATE FUNCTION edgvoip.ensure_cdr_partitions(from_day date, months integer) RETURNS integer LANGUAGE plpgsql
  SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  first_day date;
  parent    text;
  made      integer := 0;
BEGIN
  IF months NOT BETWEEN 0 AND 24 THEN
    RAISE EXCEPTION 'months is not between 0 and 24';
  END IF;
  FOREACH parent IN ARRAY ARRAY['cdr', 'cdr_legs'] LOOP
    FOR i IN 0..months LOOP
      first_day := (date_trunc('month', from_day) + make_interval(months => i))::date;
      IF to_regclass(format('edgvoip.%s_%s', parent, to_char(first_day, 'YYYY_MM'))) IS NULL THEN
        BEGIN
          -- Bounds are written in UTC, so that the same month is the same rows whatever the session's zone.
          EXECUTE format('CREATE TABLE edgvoip.%s_%s PARTITION OF edgvoip.%s FOR VALUES FROM (%L) TO (%L)',
            parent, to_char(first_day, 'YYYY_MM'), parent,
            to_char(first_day, 'YYYY-MM-DD') || ' 00:00:00+00',
            to_char(first_day + interval '1 month', 'YYYY-MM-DD') || ' 00:00:00+00');
          made := made + 1;
        EXCEPTION WHEN check_violation THEN
          RAISE WARNING 'rows in edgvoip.%_default keep the partition of % from being made', parent, to_char(first_day, 'YYYY-MM');
        END;
      END IF;
    END LOOP;
  END LOOP;
  RETURN made;
END
$$;

-- Removes a tenant's call records that are older than it keeps them, at most 5000 at a time, but for those whose recordings
-- are still there. It runs as the owner: the API itself cannot take a record back, and cannot say which is old.
CREATE FUNCTION edgvoip.expire_cdr(tenant uuid) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  before timestamptz := (SELECT now() - make_interval(days => cdr_days) FROM edgvoip.tenants WHERE id = tenant);
  legs   bigint;
  calls  bigint;
BEGIN
  DELETE FROM edgvoip.cdr WHERE tenant_id = tenant AND (start_time, call_id) IN (
    SELECT start_time, call_id FROM edgvoip.cdr WHERE tenant_id = tenant AND start_time < before AND recording_path IS NULL LIMIT 5000);
  GET DIAGNOSTICS calls = ROW_COUNT;
  -- Legs go after their calls, whichever of the two began first.
  DELETE FROM edgvoip.cdr_legs WHERE tenant_id = tenant AND (start_time, leg_id) IN (
    SELECT l.start_time, l.leg_id FROM edgvoip.cdr_legs l
     WHERE l.tenant_id = tenant AND l.start_time < before
       AND NOT EXISTS (SELECT FROM edgvoip.cdr c WHERE c.tenant_id = tenant AND c.call_id = l.call_id) LIMIT 5000);
  GET DIAGNOSTICS legs = ROW_COUNT;
  RETURN legs + calls;
END
$$;

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

-- Privileges.
GRANT USAGE ON SCHEMA edgvoip TO edgvoip_api, edgvoip_xmlcurl;

GRANT SELECT, INSERT, UPDATE, DELETE ON
  edgvoip.tenants, edgvoip.sip_domains, edgvoip.sip_extensions, edgvoip.voip_extension_store_access,
  edgvoip.sip_trunks, edgvoip.sip_trunk_did_ranges, edgvoip.integration_secrets,
  edgvoip.idempotency_keys, edgvoip.jobs
  TO edgvoip_api;
GRANT SELECT ON edgvoip.sip_names TO edgvoip_api;
REVOKE EXECUTE ON FUNCTION edgvoip.ensure_cdr_partitions(date, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION edgvoip.ensure_cdr_partitions(date, integer) TO edgvoip_api;
GRANT SELECT, INSERT ON edgvoip.audit_log TO edgvoip_api;
GRANT SELECT, INSERT, DELETE ON edgvoip.seen_signatures TO edgvoip_api;
GRANT SELECT, INSERT, UPDATE ON edgvoip.operator_tokens TO edgvoip_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON edgvoip.switch_nodes TO edgvoip_api;
GRANT SELECT ON edgvoip.changes TO edgvoip_api, edgvoip_xmlcurl;
-- Whoever may execute a trigger function can put it on a table of his own, and then has it write with its owner's rights.
REVOKE EXECUTE ON FUNCTION edgvoip.keep_sip_names(), edgvoip.tell_changes(), edgvoip.tell_nodes(), edgvoip.tell_switches_of_user(),
  edgvoip.tell_switches_of_domain(), edgvoip.tell_switches_of_tenant() FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION edgvoip.prune_changes(interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION edgvoip.prune_changes(interval) TO edgvoip_api, edgvoip_xmlcurl;
GRANT SELECT, INSERT, UPDATE ON edgvoip.heartbeat TO edgvoip_api;
GRANT SELECT ON edgvoip.heartbeat TO edgvoip_xmlcurl;

GRANT SELECT (id, slug, name, country, status, record_calls, timezone) ON edgvoip.tenants TO edgvoip_xmlcurl;
GRANT SELECT (tenant_id, id, realm, status, created_at) ON edgvoip.sip_domains TO edgvoip_xmlcurl;
GRANT SELECT ON edgvoip.sip_names, edgvoip.sip_trunk_did_ranges TO edgvoip_xmlcurl;
GRANT SELECT (tenant_id, id, domain_id, extension, sip_username, display_name, transport, allowed_codecs,
              max_concurrent_calls, outbound_caller_id, status, ha1_md5_sealed, ha1_sha256_sealed, ha1_key_id)
  ON edgvoip.sip_extensions TO edgvoip_xmlcurl;
GRANT SELECT (tenant_id, id, name, host, port, protocol, max_channels, priority, status, source_addresses, register,
              username, password_sealed, password_key_id, caller_id_policy, caller_id_number, ai_failover_extension,
              proxy, number_format, tech_prefix, prefixes, codecs, ping_seconds, gateway_revision, ai_agent_ref, ai_time_policy)
  ON edgvoip.sip_trunks TO edgvoip_xmlcurl;

GRANT SELECT, INSERT, UPDATE, DELETE ON edgvoip.trunk_gateways, edgvoip.webhook_endpoints, edgvoip.webhook_events, edgvoip.webhook_attempts,
  edgvoip.cdr_documents, edgvoip.cdr_sightings TO edgvoip_api;
-- A call record may be completed, not taken back.
GRANT SELECT, INSERT, UPDATE ON edgvoip.cdr, edgvoip.cdr_legs TO edgvoip_api;
REVOKE EXECUTE ON FUNCTION edgvoip.count_gateway_revisions(), edgvoip.tell_switches_of_trunk(), edgvoip.line_up_event(), edgvoip.move_up_events(),
  edgvoip.tell_webhooks(), edgvoip.tell_switches_about_trunk(edgvoip.sip_trunks, boolean, boolean, boolean, boolean),
  edgvoip.ask_switches(uuid, text, uuid, uuid, jsonb, boolean),
  edgvoip.expire_cdr(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION edgvoip.expire_cdr(uuid) TO edgvoip_api;

-- ai-bridge reads which trunk has which agent, where the tenant's W3 is and what to sign with; no bearer token, no number, no password.
GRANT USAGE ON SCHEMA edgvoip TO edgvoip_ai_bridge;
GRANT SELECT (id, status) ON edgvoip.tenants TO edgvoip_ai_bridge;
GRANT SELECT (tenant_id, id, store_id, status, ai_agent_ref) ON edgvoip.sip_trunks TO edgvoip_ai_bridge;
GRANT SELECT (tenant_id, base_url, status) ON edgvoip.webhook_endpoints TO edgvoip_ai_bridge;
GRANT SELECT (tenant_id, id, hmac_secret_sealed, hmac_secret_key_id, created_at, rotated_at, expires_at, last_used_at)
  ON edgvoip.integration_secrets TO edgvoip_ai_bridge;
-- It says which gateways it leaves alone, for explanations of calls.
GRANT SELECT, INSERT, UPDATE, DELETE ON edgvoip.ai_breakers TO edgvoip_ai_bridge;
GRANT SELECT ON edgvoip.ai_open_breakers TO edgvoip_api, edgvoip_xmlcurl;
-- Whether a tenant has one, for explanations.
GRANT SELECT (tenant_id) ON edgvoip.webhook_endpoints TO edgvoip_xmlcurl;
