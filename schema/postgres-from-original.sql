-- Makes a lock table that Verrou for Node.js 0.5.2 made one that keeps fencing tokens: schema version 1. Can be run again.
-- A long reader of the table would make it wait, and everybody else behind it: then it gives up, and can be run later.
BEGIN;
SET LOCAL lock_timeout = '500ms';
ALTER TABLE "verrou" ADD COLUMN IF NOT EXISTS fence bigint NOT NULL DEFAULT 0;
COMMIT;
