import type { Group } from '@japa/runner/core'
import type { test } from '@japa/runner'
import type { LockStore } from './types.js'

/** Registers what a LockStore has to do as tests. */
export declare function registerStoreTestSuite(options: {
    test: typeof test
    createStore: () => LockStore
    configureGroup?: (group: Group) => any
}): void
