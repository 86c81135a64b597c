-- {schema} stands for the quoted name of the schema. Texts are compared by their bytes, as everywhere in flowdsl.

CREATE TABLE {schema}.runs (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL,
    epoch bigint NOT NULL,
    pruned boolean NOT NULL DEFAULT false,
    status text COLLATE "C" NOT NULL,
    owner text COLLATE "C",
    lease_until double precision NOT NULL,
    cancel_requested double precision,
    base bigint NOT NULL DEFAULT 0,
    pulse bigint NOT NULL DEFAULT 0,
    nonce text COLLATE "C" NOT NULL DEFAULT '',
    workflow text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    number bigint,
    tags text COLLATE "C" NOT NULL DEFAULT '',
    created_at double precision NOT NULL,
    finished_at double precision,
    deadline double precision,
    open_failures text COLLATE "C" NOT NULL DEFAULT '',
    retryable boolean NOT NULL,
    undoing text COLLATE "C" NOT NULL,
    parent text COLLATE "C",
    parent_key text COLLATE "C",
    forked_from text COLLATE "C",
    floor bigint NOT NULL,
    recoveries bigint NOT NULL,
    version text COLLATE "C" NOT NULL,
    generation bigint NOT NULL DEFAULT 1,
    started_by text COLLATE "C",
    queue text COLLATE "C",
    priority bigint NOT NULL DEFAULT 0,
    partition text COLLATE "C",
    dedup text COLLATE "C",
    not_before double precision,
    serial text COLLATE "C",
    claimed_at double precision,
    seal bytea NOT NULL DEFAULT '',
    cancel_seal bytea NOT NULL DEFAULT '',
    args_preview text COLLATE "C" NOT NULL,
    result_preview text COLLATE "C" NOT NULL,
    error_preview text COLLATE "C" NOT NULL,
    args bytea NOT NULL,
    result bytea,
    error bytea
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02);
-- Room in each page, and no index on lease_until, let renewed leases stay in their page.

CREATE UNIQUE INDEX runs_id ON {schema}.runs (id);
CREATE INDEX runs_created ON {schema}.runs (created_at, id);
CREATE INDEX runs_status ON {schema}.runs (status, created_at, id);
CREATE INDEX runs_workflow ON {schema}.runs (workflow, created_at, id);
CREATE INDEX runs_parent ON {schema}.runs (parent, created_at, id) WHERE parent IS NOT NULL;
CREATE INDEX runs_key ON {schema}.runs (key, number);
CREATE INDEX runs_nonce ON {schema}.runs (nonce) WHERE nonce <> '';

CREATE TABLE {schema}.run_tags (
    run bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    value text COLLATE "C"
);
CREATE INDEX run_tags_name ON {schema}.run_tags (name, value, run);
CREATE INDEX run_tags_run ON {schema}.run_tags (run);

-- The journal is a log: rows are appended, the last of a key counts, and there is no second index.
CREATE TABLE {schema}.steps (
    run bigint NOT NULL,
    seq bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    occurrence bigint NOT NULL,
    ordinal bigint NOT NULL,
    status text COLLATE "C" NOT NULL,
    attempts bigint NOT NULL,
    args text COLLATE "C" NOT NULL,
    defaults text COLLATE "C" NOT NULL,
    payload bytea,
    preview text COLLATE "C" NOT NULL,
    created_at double precision NOT NULL,
    completed_at double precision,
    concurrent boolean NOT NULL,
    draws bigint NOT NULL,
    version text COLLATE "C" NOT NULL,
    extra text COLLATE "C" NOT NULL,
    seal bytea NOT NULL,
    PRIMARY KEY (run, seq)
);

CREATE TABLE {schema}.signals (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run bigint NOT NULL,
    id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    payload bytea NOT NULL,
    preview text COLLATE "C" NOT NULL,
    sender text COLLATE "C",
    key text COLLATE "C",
    created_at double precision NOT NULL,
    taken_by text COLLATE "C",
    asked boolean NOT NULL,
    reply bytea,
    reply_preview text COLLATE "C" NOT NULL DEFAULT '',
    reply_failed boolean NOT NULL DEFAULT false,
    reply_seal bytea NOT NULL DEFAULT '',
    seal bytea NOT NULL
);
CREATE UNIQUE INDEX signals_id ON {schema}.signals (run, id);
CREATE UNIQUE INDEX signals_key ON {schema}.signals (run, name, key) WHERE key IS NOT NULL;
CREATE INDEX signals_unread ON {schema}.signals (run, seq) WHERE taken_by IS NULL;

CREATE TABLE {schema}.items (
    run bigint NOT NULL,
    channel text COLLATE "C" NOT NULL,
    n bigint NOT NULL,
    payload bytea NOT NULL,
    preview text COLLATE "C" NOT NULL,
    created_at double precision NOT NULL,
    seal bytea NOT NULL,
    PRIMARY KEY (run, channel, n)
);

CREATE TABLE {schema}.memos (
    key text COLLATE "C" PRIMARY KEY,
    path text COLLATE "C" NOT NULL,
    payload bytea NOT NULL,
    preview text COLLATE "C" NOT NULL,
    created_at double precision NOT NULL,
    expires_at double precision,
    defaults text COLLATE "C" NOT NULL,
    seal bytea NOT NULL
);

CREATE TABLE {schema}.queues (
    name text COLLATE "C" PRIMARY KEY,
    spec text COLLATE "C" NOT NULL,
    paused boolean NOT NULL,
    seal bytea NOT NULL
);
CREATE TABLE {schema}.schedules (
    name text COLLATE "C" PRIMARY KEY,
    spec text COLLATE "C" NOT NULL,
    args bytea NOT NULL,
    paused boolean NOT NULL,
    created_at double precision NOT NULL,
    last double precision NOT NULL,
    seal bytea NOT NULL
);
CREATE TABLE {schema}.workers (
    id text COLLATE "C" PRIMARY KEY,
    spec text COLLATE "C" NOT NULL,
    started_at double precision NOT NULL,
    seen_at double precision NOT NULL
);

-- Who waits for what, so that nobody is notified in vain: notifications make commits wait for each other.
CREATE UNLOGGED TABLE {schema}.waits (
    topic text COLLATE "C" PRIMARY KEY,
    until double precision NOT NULL
);

CREATE TABLE {schema}.counters (
    name text COLLATE "C" PRIMARY KEY,
    value bigint NOT NULL
);
INSERT INTO {schema}.counters VALUES ('epoch', 0);
