-- The journal of a run becomes a log: rows (run, n) in one b-tree, appended, and the last of a key counts.
-- Runs, messages and memos get what generations, queues, replies and seals need. Large columns stay last.

CREATE TABLE log (
    seq INTEGER PRIMARY KEY,           -- runs.no << 32 | n
    key TEXT NOT NULL,
    path TEXT NOT NULL,
    kind TEXT NOT NULL,
    scope TEXT NOT NULL,
    occurrence INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    status TEXT NOT NULL,
    args TEXT NOT NULL,
    defaults TEXT NOT NULL,
    preview TEXT NOT NULL,
    created_at REAL NOT NULL,
    completed_at REAL,
    more TEXT,                         -- JSON of attempts, concurrent, draws, version, extra; NULL where all are usual
    seal BLOB,
    payload BLOB
);
INSERT INTO log
    SELECT (run << 32) | row_number() OVER (PARTITION BY run ORDER BY seq),
        key, path, kind, scope, occurrence, ordinal, status, args, defaults, preview, created_at, completed_at, more,
        NULL, payload
    FROM steps WHERE run <> 0;

CREATE TABLE runs_new (
    no INTEGER PRIMARY KEY,            -- stands for the run in other tables
    id TEXT NOT NULL UNIQUE,
    epoch INTEGER NOT NULL,
    pruned INTEGER NOT NULL DEFAULT 0,
    status TEXT NOT NULL,
    owner TEXT,
    lease_until REAL NOT NULL,
    cancel_requested REAL,
    base INTEGER NOT NULL DEFAULT 0,   -- the highest n of the steps that were deleted
    pulse INTEGER NOT NULL DEFAULT 0,  -- grows with what others must notice: see flowdsl/storage/pulses.py
    nonce TEXT NOT NULL DEFAULT '',    -- of the insertion or claim that made the owner what it is
    workflow TEXT NOT NULL,
    key TEXT NOT NULL,
    number INTEGER,
    tags TEXT NOT NULL DEFAULT '',     -- JSON: a list of names or an object; '' for none
    created_at REAL NOT NULL,
    finished_at REAL,
    deadline REAL,
    open_failures TEXT NOT NULL DEFAULT '',   -- JSON list; '' for none
    retryable INTEGER NOT NULL,
    undoing TEXT NOT NULL,
    parent TEXT,
    parent_key TEXT,
    forked_from TEXT,
    floor INTEGER NOT NULL,
    recoveries INTEGER NOT NULL,
    version TEXT NOT NULL,
    generation INTEGER NOT NULL DEFAULT 1,
    started_by TEXT,
    queue TEXT,
    priority INTEGER NOT NULL DEFAULT 0,
    "partition" TEXT,
    dedup TEXT,
    not_before REAL,
    serial TEXT,
    claimed_at REAL,
    seal BLOB NOT NULL DEFAULT x'',
    cancel_seal BLOB NOT NULL DEFAULT x'',
    args_preview TEXT NOT NULL,
    result_preview TEXT NOT NULL,
    error_preview TEXT NOT NULL,
    args BLOB NOT NULL,
    result BLOB,
    error BLOB
);
INSERT INTO runs_new (no, id, epoch, pruned, status, owner, lease_until, cancel_requested, base, nonce, workflow, key,
        number, tags, created_at, finished_at, deadline, open_failures, retryable, undoing, parent, parent_key,
        forked_from, floor, recoveries, version, args_preview, result_preview, error_preview, args, result, error)
    SELECT no, id, epoch, pruned, status, owner, lease_until, cancel_requested,
        (SELECT count(*) FROM steps WHERE steps.run = runs.no), nonce, workflow, key,
        number, tags, created_at, finished_at, deadline, open_failures, retryable, undoing, parent, parent_key,
        forked_from, (SELECT count(*) FROM steps WHERE steps.run = runs.no AND steps.seq <= runs.floor),
        recoveries, version, args_preview, result_preview, error_preview, args, result, error
    FROM runs;
DROP TABLE steps;
DROP TABLE runs;
ALTER TABLE log RENAME TO steps;
ALTER TABLE runs_new RENAME TO runs;

CREATE INDEX runs_created ON runs (created_at, id);
CREATE INDEX runs_status ON runs (status, created_at, id);
CREATE INDEX runs_workflow ON runs (workflow, created_at, id);
CREATE INDEX runs_parent ON runs (parent, created_at, id) WHERE parent IS NOT NULL;
CREATE INDEX runs_key ON runs (key, number);
CREATE INDEX runs_nonce ON runs (nonce) WHERE nonce <> '';

-- The runs of a key that a call may continue. Owners stand before numbers so that those of a skipped owner
-- cost one seek.
CREATE INDEX runs_live ON runs (key, owner, number)
    WHERE number IS NOT NULL AND status IN ('pending', 'running');
CREATE INDEX runs_failed ON runs (key, number)
    WHERE number IS NOT NULL AND status = 'failed' AND retryable = 1;

ALTER TABLE signals ADD COLUMN asked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE signals ADD COLUMN reply_failed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE signals ADD COLUMN reply_preview TEXT NOT NULL DEFAULT '';
ALTER TABLE signals ADD COLUMN reply_seal BLOB NOT NULL DEFAULT x'';
ALTER TABLE signals ADD COLUMN seal BLOB NOT NULL DEFAULT x'';
ALTER TABLE signals ADD COLUMN reply BLOB;

ALTER TABLE memos ADD COLUMN seal BLOB NOT NULL DEFAULT x'';

CREATE TABLE items (
    run INTEGER NOT NULL,
    channel TEXT NOT NULL,
    n INTEGER NOT NULL,
    created_at REAL NOT NULL,
    preview TEXT NOT NULL,
    seal BLOB NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (run, channel, n)
) WITHOUT ROWID;

CREATE TABLE queues (
    name TEXT PRIMARY KEY,
    spec TEXT NOT NULL,
    paused INTEGER NOT NULL,
    seal BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE schedules (
    name TEXT PRIMARY KEY,
    spec TEXT NOT NULL,
    args BLOB NOT NULL,
    paused INTEGER NOT NULL,
    created_at REAL NOT NULL,
    last REAL NOT NULL,
    seal BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE workers (
    id TEXT PRIMARY KEY,
    spec TEXT NOT NULL,
    started_at REAL NOT NULL,
    seen_at REAL NOT NULL
) WITHOUT ROWID;
