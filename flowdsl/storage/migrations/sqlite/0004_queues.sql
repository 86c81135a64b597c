-- Claiming runs: which is due next, what began lately, and which unfinished run is the same work.
CREATE INDEX runs_pending ON runs (-priority, created_at, id) WHERE status = 'pending';
CREATE INDEX runs_claimed ON runs (claimed_at) WHERE claimed_at IS NOT NULL;
CREATE INDEX runs_dedup ON runs (dedup, workflow) WHERE dedup IS NOT NULL;
