-- Verrou lock table for MySQL and MariaDB, schema version 1. Can be run again.
CREATE TABLE IF NOT EXISTS `verrou` (
    `key` varbinary(255) not null primary key,
    `owner` varchar(255) character set utf8mb4 collate utf8mb4_0900_bin not null,
    `expiration` bigint null,
    `fence` bigint not null default 0
) ENGINE=InnoDB;
