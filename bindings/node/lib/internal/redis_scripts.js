/*
 * redis_scripts.js - what is carried out on the server: the scripts of the native store (docs/internals/redis.md says why they are as they are),
 * without what that needs to tell replies apart, which the client does here.
 *
 * A script's text is sent when the server does not know it by its hash.
 */
import { createHash } from 'node:crypto'

const script = (text) => ({ text, sha: createHash('sha1').update(text).digest('hex') })

/*
 * KEYS: lock, counter (may be missing). ARGV: owner, milliseconds (0: never expires). SET comes first: whatever fails before it has changed
 * nothing, and what comes after it must not fail. A negative token came from the clock alone: the counter cannot be used.
 */
export const ACQUIRE = script(`
local k,o,s=KEYS[1],ARGV[1]
if ARGV[2]=='0' then s=redis.call('SET',k,o,'NX') else s=redis.call('SET',k,o,'NX','PX',ARGV[2]) end
if not s then
 local h=redis.call('GET',k)
 if h~=o then return {h,redis.call('PTTL',k)} end
end
local t=redis.call('TIME')
local n=t[1]*1000000+t[2]
if KEYS[2] then
 local h=redis.pcall('HGET',KEYS[2],'f')
 local f=tonumber(h)
 local x=f and f>=9007199254740991
 if f and f>=n and not x then n=f+1 end
 if x or type(h)=='table' or type(redis.pcall('HSET',KEYS[2],'f',string.format('%.0f',n)))=='table' then n=-n end
end
if not s then return {o,redis.call('PTTL',k),n} end
return n`)

/* A release is published on the channel named like the key: that wakes who waits in a process with a native store. Redis before 7 has no SPUBLISH. */
const PUBLISH = `
 local p=redis.pcall(channel,KEYS[1],id)
 if type(p)=='table' and channel~='PUBLISH' then redis.pcall('PUBLISH',KEYS[1],id) end`

/* KEYS: lock. ARGV: owner, PUBLISH or SPUBLISH, who we are. */
export const RELEASE = script(`
local channel,id=ARGV[2],ARGV[3]
if redis.call('GET',KEYS[1])==ARGV[1] then
 redis.call('DEL',KEYS[1])${PUBLISH}
 return 1
end
return 0`)

/* KEYS: lock. ARGV: owner, milliseconds (0: never expires). */
export const EXTEND = script(`
if redis.call('GET',KEYS[1])==ARGV[1] then
 if ARGV[2]=='0' then redis.call('PERSIST',KEYS[1]) else redis.call('PEXPIRE',KEYS[1],ARGV[2]) end
 return 1
end
return 0`)

/* KEYS: lock. ARGV: PUBLISH or SPUBLISH, who we are. What cannot be an owner (bytes that no UTF-8 has) is no lock, and left alone. */
export const FORCE = script(`
local channel,id=ARGV[1],ARGV[2]
local h=redis.call('GET',KEYS[1])
if h then
 if #h==0 or #h>255 or string.find(h,'[%z\\192\\193\\245-\\255]') then return redis.error_reply('WRONGTYPE no owner') end
 redis.call('DEL',KEYS[1])${PUBLISH}
end
return 1`)

/* KEYS: lock. 0: free. */
export const INSPECT = script(`
local h=redis.call('GET',KEYS[1])
if h then return {h,redis.call('PTTL',KEYS[1])} end
return 0`)
