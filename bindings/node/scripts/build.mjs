/*
 * build.mjs - builds the addon: npm runs it when the package is installed.
 *
 * The core and the stores are in C, and come as sources. The machine needs a C compiler, make, cmake and pkg-config, the libraries jansson
 * and inih, and for each store its client library; a store without that is left out, and says so when it is asked for. The headers of
 * Node.js are taken from where this Node.js, or another one of version 18 or later, is installed: Node-API is the same in all of them.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const build = join(root, 'build')
const PACKAGES = 'gcc make cmake pkg-config libjansson-dev libinih-dev'

function die(message) {
    console.error(`libverrou: ${message}`)
    process.exit(1)
}

/* Where headers may be, the likeliest first. `nodedir` is npm's and node-gyp's setting for it. */
function headerFolders() {
    const prefixes = [
        process.env.npm_config_nodedir,
        process.env.npm_package_config_node_gyp_nodedir,
        dirname(dirname(process.execPath)),
        process.config.variables.node_prefix,
        '/usr/local',
        '/usr',
    ]

    return prefixes
        .filter(Boolean)
        .flatMap((prefix) => [join(prefix, 'include', 'node'), join(prefix, 'include', 'nodejs', 'src'), join(prefix, 'src')])
}

function headersVersion(folder) {
    const text = readFileSync(join(folder, 'node_version.h'), 'utf8')

    return Number(/#define NODE_MAJOR_VERSION (\d+)/.exec(text)?.[1] ?? 0)
}

function findHeaders() {
    const folders = [process.env.VERROU_NODE_HEADERS, ...headerFolders()].filter(Boolean)
    const found = folders.find(
        (folder) =>
            ['node_api.h', 'node_version.h'].every((file) => existsSync(join(folder, file))) &&
            headersVersion(folder) >= 18 &&
            /* Debian has libuv's apart. */
            [folder, '/usr/local/include', '/usr/include'].some((place) => existsSync(join(place, 'uv.h')))
    )

    return found ?? die(
        'the headers of Node.js (node_api.h, uv.h) were not found. Looked in:\n' +
        `${folders.map((folder) => `    ${folder}\n`).join('')}` +
        'Install them with Node.js, or name their folder in VERROU_NODE_HEADERS'
    )
}

function run(args, advice) {
    const { error, status } = spawnSync('cmake', args, { stdio: 'inherit' })

    if (error?.code === 'ENOENT') die(`there is no cmake to build the addon with. On Debian: apt-get install ${PACKAGES}`)
    if (error || status !== 0) die(advice)
}

const [major, minor] = process.versions.node.split('.').map(Number)

if (major < 20 || (major === 20 && minor < 6)) die(`this is Node.js ${process.versions.node}; 20.6 or later is needed`)

const headers = findHeaders()
const jobs = process.env.VERROU_BUILD_JOBS ?? '2'
const extra = (process.env.VERROU_CMAKE_ARGS ?? '').split(' ').filter(Boolean)

run(
    ['-S', root, '-B', build, '-DCMAKE_BUILD_TYPE=RelWithDebInfo', `-DNODE_HEADERS=${headers}`, ...extra],
    `the build cannot be set up; see above for what is missing. On Debian: apt-get install ${PACKAGES}`
)
run(['--build', build, `-j${jobs}`, '--target', 'addon'], 'the addon does not build; see above')
for (const made of readdirSync(build)) if (made !== 'lib') rmSync(join(build, made), { recursive: true })
