-- Columns that every commit reads stand first in a row, large ones last.

CREATE TABLE runs (
    no INTEGER PRIMARY KEY,            -- stands for the run in other tables
    id TEXT NOT NULL UNIQUE,
    epoch INTEGER NOT NULL,
    pruned INTEGER NOT NULL DEFAULT 0,
    status TEXT NOT NULL,
    owner TEXT,
    lease_until REAL NOT NULL,
    cancel_requested REAL,
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
    args_preview TEXT NOT NULL,
    result_preview TEXT NOT NULL,
    error_preview TEXT NOT NULL,
    args BLOB NOT NULL,
    result BLOB,
    error BLOB
);

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

CREATE TABLE run_tags (
    run INTEGER NOT NULL,
    name TEXT NOT NULL,
    value,                             -- NULL: the tag is a name only
    PRIMARY KEY (run, name)
) WITHOUT ROWID;
CREATE INDEX run_tags_name ON run_tags (name, value);

-- seq is the rowid, so the next one is free of charge. The row of run 0, if any, only keeps the highest seq
-- that was deleted from being given again.
CREATE TABLE steps (
    seq INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    key TEXT NOT NULL,
    path TEXT NOT NULL,
    kind TEXT NOT NULL,
    scope TEXT NOT NULL,
    occurrence INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    status TEXT NOT NULL,
    args TEXT NOT NULL,
    defaults TEXT NOT NULL,
    payload BLOB,
    preview TEXT NOT NULL,
    created_at REAL NOT NULL,
    completed_at REAL,
    more TEXT                          -- JSON of attempts, concurrent, draws, version, extra; NULL where all are usual
);
CREATE UNIQUE INDEX steps_key ON steps (run, key);

CREATE TABLE signals (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    key TEXT,
    taken_by TEXT,
    sender TEXT,
    created_at REAL NOT NULL,
    preview TEXT NOT NULL,
    payload BLOB NOT NULL
);
CREATE UNIQUE INDEX signals_id ON signals (run, id);
CREATE UNIQUE INDEX signals_key ON signals (run, name, key) WHERE key IS NOT NULL;
CREATE INDEX signals_unread ON signals (run) WHERE taken_by IS NULL;

CREATE TABLE memos (
    key TEXT PRIMARY KEY,
    path TEXT NOT NULL,
    preview TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL,
    payload BLOB NOT NULL
);

CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO counters VALUES ('epoch', 0);   -- the highest epoch of a deleted run
