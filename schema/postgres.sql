-- Verrou lock table for PostgreSQL, schema version 1. Can be run again.
CREATE TABLE IF NOT EXISTS "verrou" (
    key varchar(255) COLLATE "C" PRIMARY KEY,
    owner varchar(255) NOT NULL,
    expiration bigint NULL,
    fence bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
