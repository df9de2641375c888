-- Trunks as the API manages them and what switches make of them; events to W3; call records by call and by leg.

-- +goose Up
-- +goose StatementBegin
ALTER TABLE edgvoip.tenants
  -- Which calls are recorded: none, those from carriers, those to carriers, both of them, or also those between extensions.
  ADD COLUMN record_calls text NOT NULL DEFAULT 'none' CHECK (record_calls IN ('none', 'inbound', 'outbound', 'external', 'all')),
  -- How many days call records and recordings are kept; null is for ever.
  ADD COLUMN cdr_days integer CHECK (cdr_days BETWEEN 1 AND 36500),
  ADD COLUMN recording_days integer CHECK (recording_days BETWEEN 1 AND 36500);

ALTER TABLE edgvoip.sip_trunks
  -- For people; FreeSWITCH does not read it.
  ADD COLUMN description text NOT NULL DEFAULT '' CHECK (length(description) <= 256),
  -- Where requests are sent in the place of the host: host or host:port (RFC 3261, 16.6); empty means the host itself.
  ADD COLUMN proxy text NOT NULL DEFAULT '' CHECK (length(proxy) <= 260),
  -- How the carrier wants called numbers: +39061234, 39061234, 0039061234.
  ADD COLUMN number_format text NOT NULL DEFAULT 'plus' CHECK (number_format IN ('plus', 'digits', 'zeros')),
  -- Put before every called number.
  ADD COLUMN tech_prefix text NOT NULL DEFAULT '' CHECK (tech_prefix ~ '^[0-9*#]{0,16}$'),
  -- The beginnings of the E.164 numbers that the trunk carries, without the plus sign; empty means all numbers.
  ADD COLUMN prefixes text[] NOT NULL DEFAULT '{}' CHECK (cardinality(prefixes) <= 256),
  -- What calls of the trunk offer, in order of preference; empty means what the switch offers.
  ADD COLUMN codecs text[] NOT NULL DEFAULT '{}' CHECK (cardinality(codecs) <= 16),
  -- OPTIONS to the carrier every so many seconds; 0 means none.
  ADD COLUMN ping_seconds integer NOT NULL DEFAULT 0 CHECK (ping_seconds = 0 OR ping_seconds BETWEEN 5 AND 3600),
  -- Counts the changes of what FreeSWITCH reads as the gateway. Kept by the trigger below.
  ADD COLUMN gateway_revision bigint NOT NULL DEFAULT 1;

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

CREATE OR REPLACE FUNCTION edgvoip.tell_switches_of_tenant() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
  INSERT INTO edgvoip.jobs (tenant_id, node_id, kind, subject, payload, correlation_id)
  SELECT d.tenant_id, n.id, 'switch.domain', d.id, jsonb_build_object('realm', d.realm),
         coalesce(current_setting('edgvoip.correlation_id', true), '')
    FROM edgvoip.switch_nodes n, edgvoip.sip_domains d
   WHERE n.status = 'active' AND d.status <> 'deleted' AND d.tenant_id = OLD.id;
  PERFORM edgvoip.tell_switches_about_trunk(t, OLD.status = 'active', NEW.status = 'active', false, true)
     FROM edgvoip.sip_trunks t
    WHERE t.tenant_id = OLD.id AND t.status = 'active' AND (OLD.status = 'active') <> (NEW.status = 'active');
  RETURN NULL;
END
$$;

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
  CONSTRAINT cdr_documents_sha256_key UNIQUE (sha256)
);
CREATE INDEX cdr_documents_new_idx ON edgvoip.cdr_documents (due_at, id) WHERE state = 'new';
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
DROP TABLE edgvoip.cdr;
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
  PRIMARY KEY (tenant_id, start_time, call_id)
) PARTITION BY RANGE (start_time);
CREATE INDEX cdr_call_idx ON edgvoip.cdr (tenant_id, call_id);
-- Files that are waited for, and files that are to be removed.
CREATE INDEX cdr_recording_idx ON edgvoip.cdr (recording_state, start_time, call_id)
  WHERE recording_path IS NOT NULL AND recording_state IN ('expected', 'removed');
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

-- Makes the partitions of the month of "from_day" and of the "months" after it, of both tables. Safe to repeat. A row in a
-- default partition keeps its own month from being made, and no other: move it out first. It runs as the owner, so that the API can call it
-- on a schedule.
CREATE OR REPLACE FUNCTION edgvoip.ensure_cdr_partitions(from_day date, months integer) RETURNS integer LANGUAGE plpgsql
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

GRANT SELECT, INSERT, UPDATE, DELETE ON edgvoip.trunk_gateways, edgvoip.webhook_endpoints, edgvoip.webhook_events, edgvoip.webhook_attempts,
  edgvoip.cdr_documents, edgvoip.cdr_sightings TO edgvoip_api;
-- A call record may be completed, not taken back.
GRANT SELECT, INSERT, UPDATE ON edgvoip.cdr, edgvoip.cdr_legs TO edgvoip_api;
REVOKE EXECUTE ON FUNCTION edgvoip.count_gateway_revisions(), edgvoip.tell_switches_of_trunk(), edgvoip.line_up_event(), edgvoip.move_up_events(),
  edgvoip.tell_webhooks(), edgvoip.tell_switches_about_trunk(edgvoip.sip_trunks, boolean, boolean, boolean, boolean),
  edgvoip.expire_cdr(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION edgvoip.expire_cdr(uuid) TO edgvoip_api;
GRANT SELECT (record_calls, timezone) ON edgvoip.tenants TO edgvoip_xmlcurl;
GRANT SELECT (proxy, number_format, tech_prefix, prefixes, codecs, ping_seconds, gateway_revision, ai_agent_ref, ai_time_policy)
  ON edgvoip.sip_trunks TO edgvoip_xmlcurl;

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'edgvoip_ai_bridge') THEN
    CREATE ROLE edgvoip_ai_bridge NOLOGIN;
  END IF;
EXCEPTION
  -- Roles are the cluster's: another database of it may be at the same point.
  WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;
-- ai-bridge reads which trunk has which agent, where the tenant's W3 is and what to sign with; no bearer token, no number, no password.
GRANT USAGE ON SCHEMA edgvoip TO edgvoip_ai_bridge;
GRANT SELECT (id, status) ON edgvoip.tenants TO edgvoip_ai_bridge;
GRANT SELECT (tenant_id, id, store_id, status, ai_agent_ref) ON edgvoip.sip_trunks TO edgvoip_ai_bridge;
GRANT SELECT (tenant_id, base_url, status) ON edgvoip.webhook_endpoints TO edgvoip_ai_bridge;
GRANT SELECT (tenant_id, id, hmac_secret_sealed, hmac_secret_key_id, created_at, rotated_at, expires_at, last_used_at)
  ON edgvoip.integration_secrets TO edgvoip_ai_bridge;
-- +goose StatementEnd
