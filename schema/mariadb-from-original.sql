-- Makes a lock table that Verrou for Node.js 0.5.2 made one that tells all keys apart and keeps fencing tokens: schema version 1.
-- A second run fails in the first statement, at the column `fence`, and changes nothing: do not go on after an error (mysql --force would).
-- The first statement is also for keys that are stored in another character set than UTF-8: the second takes their bytes as they are.
ALTER TABLE `verrou`
    ADD COLUMN `fence` bigint not null default 0,
    MODIFY COLUMN `key` varchar(255) character set utf8mb4 collate utf8mb4_nopad_bin not null;
ALTER TABLE `verrou`
    MODIFY COLUMN `key` varbinary(255) not null,
    MODIFY COLUMN `owner` varchar(255) character set utf8mb4 collate utf8mb4_nopad_bin not null;
