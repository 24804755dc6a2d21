// The Node side of bench.tokens: fast-jwt, jsonwebtoken and jose, timed in this process; it knows no other library.
//
// One JSON object per line comes in, one goes out. Only the calls are timed: neither the pipe nor JSON. `jose` has no
// synchronous calls: its tokens are awaited one after the other.
//
//   {"do":"versions"} → {"node", "fast-jwt", "jsonwebtoken", "jose"}
//   {"do":"key", "alg", "jwk", "public", "demands"} → {"offered": [library…]}
//   {"do":"verify", "alg", "library", "tokens", "untimed", "together"} → {"us"}, or {"refused": message}
//   {"do":"sign", "alg", "library", "claims", "untimed", "together"} → {"us", "token": the last}
//
// "us" lists microseconds for one call, of "together" calls that were timed as one, save the first "untimed" ones.
import { createPrivateKey, createPublicKey, createSecretKey } from 'node:crypto'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

const [modules] = process.argv.slice(2)
const require = createRequire(join(modules, 'index.js'))
const fastJwt = require('fast-jwt')
const jsonwebtoken = require('jsonwebtoken')
const jose = await import(join(modules, 'jose/dist/webapi/index.js'))

const sides = new Map()

// Each maker gives { verify(token), sign(claims) }, or throws where the library cannot use the key.
const makers = {
  'fast-jwt': ({ alg, jwk, public: publicJwk, demands }) => {
    const algorithm = alg === 'Ed25519' ? 'EdDSA' : alg
    const secret = jwk.kty === 'oct' ? Buffer.from(jwk.k, 'base64url') : undefined
    const pem = { private: { format: 'pem', type: 'pkcs8' }, public: { format: 'pem', type: 'spki' } }
    const verify = fastJwt.createVerifier({
      key: secret ?? createPublicKey({ key: publicJwk, format: 'jwk' }).export(pem.public),
      algorithms: [algorithm],
      allowedIss: demands.issuer,
      allowedAud: demands.audience,
      requiredClaims: demands.required,
      checkTyp: demands.typ,
      clockTolerance: demands.leewayS * 1000,
      cache: false
    })
    const sign = fastJwt.createSigner({
      key: secret ?? createPrivateKey({ key: jwk, format: 'jwk' }).export(pem.private),
      algorithm,
      kid: demands.kid,
      header: { typ: demands.typ }
    })
    return { verify, sign }
  },

  jsonwebtoken: ({ alg, jwk, public: publicJwk, demands }) => {
    const secret = jwk.kty === 'oct' ? createSecretKey(jwk.k, 'base64url') : undefined
    const key = secret ?? createPrivateKey({ key: jwk, format: 'jwk' })
    const publicKey = secret ?? createPublicKey({ key: publicJwk, format: 'jwk' })
    const checks = {
      algorithms: [alg],
      issuer: demands.issuer,
      audience: demands.audience,
      clockTolerance: demands.leewayS,
      complete: true
    }
    return {
      verify: token => {
        const decoded = jsonwebtoken.verify(token, publicKey, checks)
        if (decoded.header.typ !== demands.typ) throw new Error('another typ')
        return decoded.payload
      },
      sign: claims =>
        jsonwebtoken.sign(claims, key, { algorithm: alg, keyid: demands.kid, header: { typ: demands.typ } })
    }
  },

  jose: async ({ alg, jwk, public: publicJwk, demands }) => {
    // An HMAC key is made here, because jose's importJWK gives bytes, which it would import for every token.
    const hmac = { name: 'HMAC', hash: 'SHA-256' }
    const shared =
      jwk.kty === 'oct' &&
      (await crypto.subtle.importKey('raw', Buffer.from(jwk.k, 'base64url'), hmac, false, ['sign', 'verify']))
    const key = shared || (await jose.importJWK(jwk, alg))
    const publicKey = shared || (await jose.importJWK(publicJwk, alg))
    const checks = {
      algorithms: [alg],
      issuer: demands.issuer,
      audience: demands.audience,
      typ: demands.typ,
      requiredClaims: demands.required,
      clockTolerance: demands.leewayS
    }
    return {
      verify: token => jose.jwtVerify(token, publicKey, checks),
      sign: claims => new jose.SignJWT(claims).setProtectedHeader({ alg, kid: demands.kid, typ: demands.typ }).sign(key)
    }
  }
}

const actions = {
  versions: () => ({
    node: process.versions.node,
    ...Object.fromEntries(
      Object.keys(makers).map(name => [name, JSON.parse(readFileSync(join(modules, name, 'package.json'))).version])
    )
  }),

  key: async order => {
    const offered = []
    for (const [name, make] of Object.entries(makers)) {
      try {
        const side = await make(order)
        await side.sign({ iat: 0 })
        sides.set(`${order.alg} ${name}`, side)
        offered.push(name)
      } catch {
        // It lacks the algorithm; what it is not offered for, the caller says.
      }
    }
    return { offered }
  },

  verify: async order => {
    const { verify } = sides.get(`${order.alg} ${order.library}`)
    try {
      const { us } = await time(verify, order.tokens, order)
      return { us }
    } catch (error) {
      return { refused: String(error.message) }
    }
  },

  sign: async order => {
    const { sign } = sides.get(`${order.alg} ${order.library}`)
    const { us, last } = await time(sign, order.claims, order)
    return { us, token: last }
  }
}

async function time(work, inputs, { library, untimed, together }) {
  const us = []
  let last
  for (let start = 0, end = untimed || together; start < inputs.length; start = end, end += together) {
    const few = inputs.slice(start, end)
    const began = process.hrtime.bigint()
    if (library === 'jose') {
      for (const input of few) last = await work(input)
    } else {
      for (const input of few) last = work(input)
    }
    const took = Number(process.hrtime.bigint() - began)
    if (start >= untimed) us.push(took / few.length / 1000)
  }
  return { us, last }
}

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line)
  process.stdout.write(JSON.stringify(await actions[order.do](order)) + '\n')
}
