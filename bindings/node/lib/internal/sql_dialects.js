/*
 * sql_dialects.js - the statements of the lock table in PostgreSQL, MySQL (and MariaDB) and SQLite. Table and statements are those of the
 * native stores, so that both can share a table: docs/internals/sql.md says what is in it and why, mysql.md and postgres.md why the
 * statements are as they are.
 *
 * A dialect has statements for a table with `fence` (ours) and for one without (made by @verrou/core). {table} is put in once; the other
 * names in braces are values. `take` grants a key that is free; `look` tells the live lease of a key; the others count rows.
 *
 * Keys are compared byte by byte, also on tables whose collation takes different ones for equal: there they exclude each other, the row taken over
 * is renamed, and only the exact key releases or extends it.
 */
const MAX_FENCE = '9007199254740991'

/* A page of rows for pruning, and one tombstone of it, if nobody has taken it since. */
const PAGE = 128

/* ---- PostgreSQL ---- */

const PG_NOW_US = '(date_part(\'epoch\', clock_timestamp()) * 1000000)::bigint'
const PG_END = `((${PG_NOW_US} + 999) / 1000 + CAST({ttl} AS bigint))`
const PG_LIVE = `(expiration IS NULL OR expiration > ${PG_NOW_US} / 1000)`
const PG_LEFT = `expiration - (${PG_NOW_US} + 999) / 1000`
const PG_KEY = 'CAST({key} AS text)'
const PG_EXACT = `key = ${PG_KEY} AND CAST(key AS text) = ${PG_KEY} COLLATE "C"`
const PG_OWNED = `${PG_EXACT} AND CAST(owner AS text) = CAST({owner} AS text) COLLATE "C" AND ${PG_LIVE}`
const PG_FENCE = '(CAST({fence} AS bigint) = 0 OR fence IN (0, CAST({fence} AS bigint)))'

/*
 * Looks first: what is held is refused without a row lock. A row that is free but locked by somebody is left alone. An answer without rows
 * means that somebody was faster.
 */
function pgTake(fenced) {
    const columns = fenced ? 'key, owner, expiration, fence' : 'key, owner, expiration'
    const values = `${PG_KEY}, CAST({owner} AS text), ${PG_END}${fenced ? `, ${PG_NOW_US}` : ''}`
    const token = fenced ? `, fence = greatest(coalesce(l.fence, 0) + 1, ${PG_NOW_US})` : ''
    const below = fenced ? ` AND coalesce(l.fence, 0) < ${MAX_FENCE}` : ''

    return `WITH seen AS (SELECT owner, expiration, ${fenced ? 'fence' : '0 AS fence'} FROM {table}
        WHERE key = ${PG_KEY} AND ${PG_LIVE}),
      claim AS (SELECT FROM {table} WHERE key = ${PG_KEY} FOR NO KEY UPDATE SKIP LOCKED),
      taken AS (INSERT INTO {table} AS l (${columns}) SELECT ${values} WHERE NOT EXISTS (SELECT FROM seen)
        AND (EXISTS (SELECT FROM claim) OR NOT EXISTS (SELECT FROM {table} WHERE key = ${PG_KEY}))
        ON CONFLICT (key) DO UPDATE SET key = excluded.key, owner = excluded.owner, expiration = ${PG_END}${token}
        WHERE l.expiration <= ${PG_NOW_US} / 1000${below} RETURNING ${fenced ? 'l.fence' : '0::bigint AS fence'})
      SELECT 1 AS taken, fence, NULL AS owner, NULL AS remaining FROM taken
      UNION ALL SELECT 0, fence, CAST(owner AS text), ${PG_LEFT} FROM seen WHERE NOT EXISTS (SELECT FROM taken)`
}

const postgres = {
    name: 'postgres',
    serverClock: true,
    columns: `SELECT a.attname AS name FROM pg_attribute AS a WHERE a.attrelid = to_regclass({name})
      AND a.attnum > 0 AND NOT a.attisdropped`,
    /* With the advisory lock of the native store: of several that make it at once all but one would fail. */
    create: () => `DO $verrou$ BEGIN
      PERFORM pg_advisory_xact_lock(1986359922, 0);
      CREATE TABLE IF NOT EXISTS {table} (key varchar(255) COLLATE "C" PRIMARY KEY, owner varchar(255) NOT NULL,
        expiration bigint NULL, fence bigint NOT NULL DEFAULT 0) WITH (fillfactor = 50);
      END $verrou$`,
    fenced: {
        take: pgTake(true),
        look: `SELECT owner, ${PG_LEFT} AS remaining, fence FROM {table} WHERE key = ${PG_KEY} AND ${PG_LIVE}`,
        release: `UPDATE {table} SET owner = '', expiration = 0 WHERE ${PG_OWNED} AND ${PG_FENCE} RETURNING 1 AS done`,
        extend: `UPDATE {table} SET expiration = ${PG_END} WHERE ${PG_OWNED} AND ${PG_FENCE} RETURNING 1 AS done`,
        force: `UPDATE {table} SET owner = '', expiration = 0 WHERE ${PG_EXACT}`,
        page: `SELECT key, owner, expiration, fence, ${PG_NOW_US} AS now FROM {table} WHERE key > ${PG_KEY}
          ORDER BY key LIMIT ${PAGE}`,
        prune: `DELETE FROM {table} WHERE ${PG_EXACT} AND owner = '' AND expiration = 0 AND fence = CAST({fence} AS bigint)`,
    },
    plain: {
        take: pgTake(false),
        token: `SELECT ${PG_NOW_US} AS token`,
        look: `SELECT owner, ${PG_LEFT} AS remaining, 0 AS fence FROM {table} WHERE key = ${PG_KEY} AND ${PG_LIVE}`,
        release: `DELETE FROM {table} WHERE ${PG_OWNED} RETURNING 1 AS done`,
        extend: `UPDATE {table} SET expiration = ${PG_END} WHERE ${PG_OWNED} RETURNING 1 AS done`,
        force: `DELETE FROM {table} WHERE ${PG_EXACT}`,
    },
}

/* ---- MySQL and MariaDB ---- */

const MY_NOW_US = 'TIMESTAMPDIFF(MICROSECOND,\'1970-01-01\',UTC_TIMESTAMP(6))'
const MY_NOW_MS = `(${MY_NOW_US} DIV 1000)`
/* Values are sent as bytes, and said to be UTF-8: a connection may have another character set. */
const MY_KEY = 'CONVERT({key} USING utf8mb4)'
const MY_OWNER = 'CONVERT({owner} USING utf8mb4)'
const MY_LIVE = `(\`expiration\` IS NULL OR \`expiration\`>${MY_NOW_MS})`
const MY_EXACT = `\`key\`=${MY_KEY} AND CAST(CONVERT(\`key\` USING utf8mb4) AS BINARY)={key}`
const MY_OWNED = `${MY_EXACT} AND CAST(CONVERT(\`owner\` USING utf8mb4) AS BINARY)={owner} AND ${MY_LIVE}`
/* In a table of somebody else's it may be NULL or unsigned. */
const MY_STORED = 'CAST(IFNULL(`fence`,0) AS SIGNED)'
const MY_FENCE = `({fence}=0 OR ${MY_STORED} IN (0,{fence}))`

/*
 * Assignments happen from left to right, so the expiration, on which the others depend, comes last. LAST_INSERT_ID(x) makes x come back with
 * the answer: the token, or 0 for "refused". The number of rows would not tell: clients differ in what they ask the server to count.
 */
function myTake(fenced) {
    const over = fenced ? '`expiration`<=VALUES(`fence`) DIV 1000' : `\`expiration\`<=${MY_NOW_MS}`
    const keep = (column) => `\`${column}\`=IF(${over},VALUES(\`${column}\`),\`${column}\`)`

    if (fenced)
        return `INSERT INTO {table} (\`key\`,\`owner\`,\`expiration\`,\`fence\`)
          VALUES (${MY_KEY},${MY_OWNER},${MY_NOW_MS}+{ttl},LAST_INSERT_ID(${MY_NOW_US}))
          ON DUPLICATE KEY UPDATE ${keep('key')},${keep('owner')},\`fence\`=IF(${over},
          LAST_INSERT_ID(GREATEST(IF(${MY_STORED}<${MAX_FENCE},${MY_STORED}+1,${MY_STORED}+9223372036854775807),
          VALUES(\`fence\`))),IF(LAST_INSERT_ID(0),0,\`fence\`)),${keep('expiration')}`
    return `INSERT INTO {table} (\`key\`,\`owner\`,\`expiration\`)
      VALUES (${MY_KEY},IF(LAST_INSERT_ID(1),${MY_OWNER},''),${MY_NOW_MS}+{ttl})
      ON DUPLICATE KEY UPDATE ${keep('key')},
      \`owner\`=IF(${over},IF(LAST_INSERT_ID(1),VALUES(\`owner\`),''),IF(LAST_INSERT_ID(0),'',\`owner\`)),
      ${keep('expiration')}`
}

/* What the original compares: two owners must not be equal for it that are not. */
function ownerCollation(version) {
    const [major, minor, patch] = version.split(/[.-]/).map(Number)
    const number = major * 10000 + minor * 100 + patch

    if (/mariadb/i.test(version)) return number >= 100200 ? 'utf8mb4_nopad_bin' : 'utf8mb4_bin'
    return number >= 80017 ? 'utf8mb4_0900_bin' : 'utf8mb4_bin'
}

/* Extend to the end that a lease has changes no row: LAST_INSERT_ID(1) says that there was one. */
const MY_EXTEND = `UPDATE {table} SET \`expiration\`=${MY_NOW_MS}+{ttl},\`owner\`=IF(LAST_INSERT_ID(1)>0,\`owner\`,'')
  WHERE ${MY_OWNED}`
const MY_LEFT = `\`expiration\`-${MY_NOW_MS} AS \`remaining\``

const mysql = {
    name: 'mysql',
    serverClock: true,
    columns: 'SHOW COLUMNS FROM {table}',
    version: 'SELECT VERSION() AS version',
    create: (version) => `CREATE TABLE IF NOT EXISTS {table} (\`key\` varbinary(255) not null primary key,
      \`owner\` varchar(255) character set utf8mb4 collate ${ownerCollation(version)} not null,
      \`expiration\` bigint null, \`fence\` bigint not null default 0) ENGINE=InnoDB`,
    bytes: true,
    fenced: {
        take: myTake(true),
        look: `SELECT \`owner\`,${MY_LEFT},${MY_STORED} AS \`fence\` FROM {table} WHERE \`key\`=${MY_KEY} AND ${MY_LIVE}`,
        release: `UPDATE {table} SET \`owner\`='',\`expiration\`=0 WHERE ${MY_OWNED} AND ${MY_FENCE}`,
        extend: `${MY_EXTEND} AND ${MY_FENCE}`,
        force: `UPDATE {table} SET \`owner\`='',\`expiration\`=0 WHERE ${MY_EXACT}`,
        page: `SELECT \`key\`,\`owner\`,\`expiration\`,\`fence\`,${MY_NOW_US} AS \`now\` FROM {table} WHERE \`key\`>${MY_KEY}
          ORDER BY \`key\` LIMIT ${PAGE}`,
        prune: `DELETE FROM {table} WHERE ${MY_EXACT} AND \`owner\`='' AND \`expiration\`=0 AND \`fence\`={fence}`,
    },
    plain: {
        take: myTake(false),
        /* Drawn once the row is taken: the clock of the statement that takes it stands at its begin, and since then somebody with a later one may
         * have come and gone. */
        token: `SELECT ${MY_NOW_US} AS \`token\``,
        look: `SELECT \`owner\`,${MY_LEFT},0 AS \`fence\` FROM {table} WHERE \`key\`=${MY_KEY} AND ${MY_LIVE}`,
        release: `DELETE FROM {table} WHERE ${MY_OWNED}`,
        extend: MY_EXTEND,
        force: `DELETE FROM {table} WHERE ${MY_EXACT}`,
    },
}

/* ---- SQLite: its clock is the process's, {now} and {until} ---- */

const LITE_LIVE = '(expiration IS NULL OR expiration > {now})'
const LITE_EXACT = 'key = {key} AND key = {key} COLLATE BINARY'
const LITE_OWNED = `${LITE_EXACT} AND owner = {owner} COLLATE BINARY AND ${LITE_LIVE}`
const LITE_FENCE = '({fence} = 0 OR fence IN (0, {fence}))'
const LITE_CONFLICT = 'ON CONFLICT (key) DO UPDATE SET key = excluded.key, owner = excluded.owner, expiration = excluded.expiration'

const sqlite = {
    name: 'sqlite',
    serverClock: false,
    columns: 'SELECT name FROM pragma_table_info({name})',
    create: () => `CREATE TABLE IF NOT EXISTS {table} (\`key\` varchar(255) primary key not null, \`owner\` varchar(255) not null,
      \`expiration\` bigint null, \`fence\` bigint not null default 0)`,
    fenced: {
        take: `INSERT INTO {table} (key, owner, expiration, fence) VALUES ({key}, {owner}, {until}, {now} * 1000)
          ${LITE_CONFLICT}, fence = max(coalesce(fence, 0) + 1, excluded.fence)
          WHERE expiration <= {now} AND coalesce(fence, 0) < ${MAX_FENCE} RETURNING 1 AS taken, fence`,
        look: `SELECT owner, expiration - {now} AS remaining, fence FROM {table} WHERE key = {key} AND ${LITE_LIVE}`,
        release: `UPDATE {table} SET owner = '', expiration = 0 WHERE ${LITE_OWNED} AND ${LITE_FENCE} RETURNING 1 AS done`,
        extend: `UPDATE {table} SET expiration = {until} WHERE ${LITE_OWNED} AND ${LITE_FENCE} RETURNING 1 AS done`,
        force: `UPDATE {table} SET owner = '', expiration = 0 WHERE ${LITE_EXACT} RETURNING 1 AS done`,
        page: `SELECT key, owner, expiration, fence, {now} * 1000 AS now FROM {table} WHERE key > {key}
          ORDER BY key LIMIT ${PAGE}`,
        prune: `DELETE FROM {table} WHERE ${LITE_EXACT} AND owner = '' AND expiration = 0 AND fence = {fence} RETURNING 1 AS done`,
    },
    plain: {
        take: `INSERT INTO {table} (key, owner, expiration) VALUES ({key}, {owner}, {until}) ${LITE_CONFLICT}
          WHERE expiration <= {now} RETURNING 1 AS taken, 0 AS fence`,
        look: `SELECT owner, expiration - {now} AS remaining, 0 AS fence FROM {table} WHERE key = {key} AND ${LITE_LIVE}`,
        release: `DELETE FROM {table} WHERE ${LITE_OWNED} RETURNING 1 AS done`,
        extend: `UPDATE {table} SET expiration = {until} WHERE ${LITE_OWNED} RETURNING 1 AS done`,
        force: `DELETE FROM {table} WHERE ${LITE_EXACT} RETURNING 1 AS done`,
    },
}

export const dialects = { postgres, mysql, sqlite }
