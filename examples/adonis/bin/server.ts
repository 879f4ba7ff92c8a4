import 'reflect-metadata'
import { Ignitor, prettyPrintError } from '@adonisjs/core'

new Ignitor(new URL('../', import.meta.url), { importer: (path) => import(path) })
    .tap((app) => {
        app.booting(async () => {
            await import('#start/env')
        })
        app.listen('SIGTERM', () => app.terminate())
    })
    .httpServer()
    .start()
    .catch((error) => {
        process.exitCode = 1
        prettyPrintError(error)
    })
