/* run.mjs - runs the tests of one file under Japa: run.mjs NAME.spec.mjs */
import { assert } from '@japa/assert'
import { configure, processCLIArgs, run } from '@japa/runner'

const [file, ...options] = process.argv.slice(2)

processCLIArgs(options)
configure({ files: [file], plugins: [assert()], timeout: 60_000, forceExit: false })
await run()
