-- Makes a lock table that Verrou for Node.js 0.5.2 made one that keeps fencing tokens: schema version 1.
-- A second run fails ("duplicate column name: fence") and changes nothing.
ALTER TABLE "verrou" ADD COLUMN `fence` bigint not null default 0;
