// better-auth on PostgreSQL for bench.sessions, as its documentation sets it up on Node's own HTTP server.
//
// BENCH_SERVER says what to do: {"port", "database", "accounts": how many of each kind, "argon2",
// "passwords": {"light", "costly"}, "hashes": {"light", "costly"}}. Argon2id comes from @node-rs/argon2, at the cost
// that the stored hash names. The accounts are made through the library itself. One line on the output: ready.
import { createRequire } from 'node:module'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const [modules] = process.argv.slice(2)
const orders = JSON.parse(process.env.BENCH_SERVER)
const require = createRequire(join(modules, 'index.js'))
const load = name => import(pathToFileURL(require.resolve(name)).href)
const { Pool } = require('pg')
const argon2 = require('@node-rs/argon2')
const { betterAuth } = await load('better-auth')
const { toNodeHandler } = await load('better-auth/node')
const { getMigrations } = await load('better-auth/db/migration')

const auth = betterAuth({
  baseURL: `http://127.0.0.1:${orders.port}`,
  secret: 'a secret of this benchmark alone, which nobody needs to guess',
  database: new Pool({ connectionString: orders.database, max: orders.pool }),
  emailAndPassword: {
    enabled: true,
    autoSignIn: false,
    password: {
      hash: async password => (password === orders.passwords.light ? orders.hashes.light : orders.hashes.costly),
      verify: ({ hash, password }) => argon2.verify(hash, password)
    }
  },
  rateLimit: { enabled: false },
  telemetry: { enabled: false },
  logger: { level: 'error' }
})

const { runMigrations } = await getMigrations(auth.options)
await runMigrations()
for (let number = 0; number < orders.accounts; number++) {
  for (const [kind, password] of Object.entries(orders.passwords)) {
    await auth.api.signUpEmail({ body: { email: `${kind}${number}@example.com`, password, name: kind } })
  }
}

const answer = toNodeHandler(auth)
createServer((request, response) => {
  if (request.url !== '/healthz') return answer(request, response)
  response.setHeader('content-type', 'application/json')
  response.end('{"status":"ok"}')
}).listen(orders.port, '127.0.0.1', () => console.log('ready'))
