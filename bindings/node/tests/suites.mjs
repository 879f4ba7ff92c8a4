/* suites.mjs - runs suites.spec.mjs under Japa. */
import { assert } from '@japa/assert'
import { configure, processCLIArgs, run } from '@japa/runner'

processCLIArgs(process.argv.slice(2))
configure({ files: ['suites.spec.mjs'], plugins: [assert()], timeout: 20_000, forceExit: false })
await run()
