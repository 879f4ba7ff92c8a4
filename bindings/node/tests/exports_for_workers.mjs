/* exports_for_workers.mjs - a worker that is made from a text finds packages by way of this file. */
export { E_LOCK_NOT_OWNED, LockFactory, NativeStore } from 'libverrou'
export { MemoryStore } from 'libverrou/drivers/memory'
export { mapStore } from './support.mjs'
