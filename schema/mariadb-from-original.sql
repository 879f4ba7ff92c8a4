-- Makes a lock table that Verrou for Node.js 0.5.2 made one that tells all keys apart and keeps fencing tokens: schema version 1. To be run once.
-- The first statement is for keys that are stored in another character set than UTF-8.
ALTER TABLE `verrou` MODIFY COLUMN `key` varchar(255) character set utf8mb4 collate utf8mb4_nopad_bin not null;
ALTER TABLE `verrou`
    MODIFY COLUMN `key` varbinary(255) not null,
    MODIFY COLUMN `owner` varchar(255) character set utf8mb4 collate utf8mb4_nopad_bin not null,
    ADD COLUMN `fence` bigint not null default 0;
