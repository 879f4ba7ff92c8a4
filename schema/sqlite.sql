-- Verrou lock table for SQLite, schema version 1. Can be run again.
CREATE TABLE IF NOT EXISTS "verrou" (
    `key` varchar(255) primary key not null,
    `owner` varchar(255) not null,
    `expiration` bigint null,
    `fence` bigint not null default 0
);
