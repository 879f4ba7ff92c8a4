/*
 * types.ts - compiled with the example application: its stores are known by their names, and locks are those of @verrou/core.
 */
import { E_LOCK_NOT_OWNED, type Lock, type LockFactory } from '@verrou/core'
import { errors } from '@adonisjs/lock'
import locks from '@adonisjs/lock/services/main'

export async function check() {
    const factory: LockFactory = locks.use('redis')
    const lock: Lock = locks.createLock('key', '10s')
    const results = [await lock.run(async () => 5), await factory.createLock('key').runImmediately(() => 5)]

    for (const [executed, result] of results) if (executed) result.toFixed()
    /* @ts-expect-error: no store has that name */
    locks.use('nowhere')
    return errors.E_LOCK_NOT_OWNED === E_LOCK_NOT_OWNED
}
