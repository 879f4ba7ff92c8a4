-- Makes a lock table that Verrou for Node.js 0.5.2 made one that keeps fencing tokens: schema version 1. To be run once.
ALTER TABLE "verrou" ADD COLUMN `fence` bigint not null default 0;
