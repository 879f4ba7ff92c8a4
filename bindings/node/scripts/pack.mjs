/*
 * pack.mjs - makes the package whole for `npm pack`: copies what the addon is built from, and lies outside of this folder, into core/.
 * With --undo it removes that again, so that the repository has its sources once.
 */
import { cpSync, existsSync, mkdirSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(dirname(fileURLToPath(import.meta.url)))
const repository = join(here, '..', '..')
const core = join(here, 'core')
const PARTS = ['CMakeLists.txt', 'cmake/VerrouHelpers.cmake', 'include', 'src']
const LEFT_OUT = ['src/cli', 'src/conformance']

if (existsSync(join(repository, 'include', 'verrou', 'verrou.h'))) {
    rmSync(core, { recursive: true, force: true })
    rmSync(join(here, 'LICENSE'), { force: true })
    if (!process.argv.includes('--undo')) {
        mkdirSync(join(core, 'cmake'), { recursive: true })
        for (const part of PARTS) cpSync(join(repository, part), join(core, part), { recursive: true })
        for (const part of LEFT_OUT) rmSync(join(core, part), { recursive: true })
        cpSync(join(repository, 'LICENSE'), join(here, 'LICENSE'))
    }
}
