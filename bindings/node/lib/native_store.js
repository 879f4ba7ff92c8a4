/*
 * native_store.js - a store by its address, answered by the core without JavaScript: "redis://...", "sqlite:PATH", "postgres://...".
 */
import { AddressStore } from './internal/store.js'

export class NativeStore extends AddressStore {}

export function nativeStore(url) {
    return { factory: () => new NativeStore(url) }
}
