/*
 * guide.spec.mjs - the examples of docs/guide/node.md, whose path is in GUIDE:
 *
 *     ```js            a module: run in a folder of its own, beside a Redis server of ours in the place of the one at port 6379
 *     ```js using      the same, by way of TypeScript, since not all Node.js have `await using`
 *     ```ts FILE       lines that FILE of the repository has in this order
 */
import { test } from '@japa/runner'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

import { startRedis } from './servers.mjs'

const here = fileURLToPath(new URL('.', import.meta.url))
const repository = join(process.env.GUIDE, '..', '..', '..')
const text = readFileSync(process.env.GUIDE, 'utf8')
const snippets = [...text.matchAll(/^```(js|ts)(?: (\S+))?\n([^]*?)^```$/gm)].map(([, language, word, code, ], i) => ({ language, word, code, i }))
const redis = await startRedis()

async function run(code, file) {
    writeFileSync(file, code)
    const child = spawn(process.execPath, [file], { cwd: here })
    let output = ''

    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += data))
    const timer = setTimeout(() => child.kill('SIGKILL'), 30_000)
    const [status, signal] = await once(child, 'close')

    clearTimeout(timer)
    rmSync(file)
    return { status, signal, output }
}

test('the guide has examples', ({ assert }) => {
    assert.isAtLeast(snippets.filter(({ language }) => language === 'js').length, 4)
    assert.isAtLeast(snippets.filter(({ language, word }) => language === 'ts' && word).length, 3)
})

for (const { language, word, code, i } of snippets)
    if (language === 'js')
        test(`example ${i + 1} runs`, async ({ assert }) => {
            assert.include([undefined, 'using'], word)
            const target = { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext }
            const plain = word === 'using' ? ts.transpile(code, target) : code

            assert.deepEqual(await run(plain.replaceAll('127.0.0.1:6379', `127.0.0.1:${redis.port}`), join(here, `guide_${i}.mjs`)),
                { status: 0, signal: null, output: '' })
        })
    else if (word)
        test(`example ${i + 1} is in ${word}`, ({ assert }) => {
            const lines = readFileSync(join(repository, word), 'utf8').split('\n').map((line) => line.trim())

            for (const line of code.split('\n').map((one) => one.trim()).filter(Boolean)) {
                const at = lines.indexOf(line)

                assert.notEqual(at, -1, `${word} has no line "${line}" there`)
                lines.splice(0, at + 1)
            }
        })
