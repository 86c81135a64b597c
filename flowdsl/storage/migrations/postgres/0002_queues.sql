-- Claiming runs: which is due next, what began lately, and which unfinished run is the same work.
CREATE INDEX runs_pending ON {schema}.runs ((-priority), created_at, id) WHERE status = 'pending';
CREATE INDEX runs_claimed ON {schema}.runs (claimed_at) WHERE claimed_at IS NOT NULL;
CREATE INDEX runs_dedup ON {schema}.runs (dedup, workflow) WHERE dedup IS NOT NULL;
