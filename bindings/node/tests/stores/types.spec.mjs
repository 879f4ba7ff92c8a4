/* types.spec.mjs - the declarations of the stores, as TypeScript sees them in an application. */
import { test } from '@japa/runner'
import { spawnSync } from 'node:child_process'

test('types/stores.ts compiles', ({ assert }) => {
    const { status, stdout } = spawnSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'types'], { encoding: 'utf8' })

    assert.equal(status, 0, stdout)
})
