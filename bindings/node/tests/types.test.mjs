/*
 * types.test.mjs - the declarations, by compiling types/api.ts against them.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { test } from 'node:test'

import { here } from './support.mjs'

test('types/api.ts compiles, and its wrong lines do not', () => {
    const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc')
    const { status, stdout } = spawnSync(process.execPath, [tsc, '-p', join(here, 'types')], { encoding: 'utf8' })

    assert.equal(status, 0, stdout)
})
