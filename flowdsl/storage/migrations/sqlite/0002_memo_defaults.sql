-- What a shared result was computed with beside its key: the defaults of left-out arguments, and the source.

ALTER TABLE memos ADD COLUMN defaults TEXT NOT NULL DEFAULT '';
