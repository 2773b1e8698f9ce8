// A session pool as programs have it today: all companies in one Node process, with Baileys.
//
// For `test_bench_pool.py`. Run it where `baileys` is installed, with one argument, a JSON object:
// port, ca_file, noise_root (of the sandbox) and directory (for the accounts). Commands come from
// stdin and events go to stdout, as JSON lines. It does what the library's own example does: files
// for the accounts, a new socket whenever one closes, `await sendMessage`, and one retry.

import fs from 'node:fs'
import https from 'node:https'
import { createRequire } from 'node:module'
import path from 'node:path'
import readline from 'node:readline'
import tls from 'node:tls'
import { pathToFileURL } from 'node:url'

// From where it is installed, not from where this file stands.
const installed = createRequire(path.join(process.cwd(), 'pool.mjs'))
const load = name => import(pathToFileURL(installed.resolve(name)))
const baileys = await load('baileys')
const { WA_CERT_DETAILS } = await load('baileys/lib/Defaults/index.js')
const { default: pino } = await load('pino')

const job = JSON.parse(process.argv.at(-1))
const logger = pino({ level: 'silent' })
const ca = fs.readFileSync(job.ca_file)
const agent = new https.Agent({ keepAlive: false })
agent.createConnection = options =>
  tls.connect({ ...options, host: '127.0.0.1', port: job.port, servername: 'web.whatsapp.com', ca })
Buffer.from(job.noise_root, 'hex').copy(WA_CERT_DETAILS.PUBLIC_KEY)

// The library prints there, too; stdout is for our lines.
console.log = console.info = console.warn = console.error

const sockets = new Map() // by company
const acknowledged = new Map() // message id -> what waits for WhatsApp's ack
const say = event => process.stdout.write(JSON.stringify(event) + '\n')
const pause = ms => new Promise(resolve => setTimeout(resolve, ms))

async function open(company) {
  const account = path.join(job.directory, company)
  const { state, saveCreds } = await baileys.useMultiFileAuthState(account)
  const keys = baileys.makeCacheableSignalKeyStore(state.keys, logger)
  const socket = baileys.makeWASocket({
    auth: { creds: state.creds, keys },
    agent,
    logger,
    syncFullHistory: false,
    markOnlineOnConnect: false
  })
  sockets.set(company, socket)
  socket.ev.on('creds.update', saveCreds)
  socket.ev.on('connection.update', update => {
    if (update.qr) say({ event: 'qr', company, qr: update.qr })
    if (update.connection === 'open') say({ event: 'connected', company, jid: socket.user.id })
    if (update.connection === 'close') {
      const code = update.lastDisconnect?.error?.output?.statusCode
      if (code === baileys.DisconnectReason.loggedOut) say({ event: 'logged_out', company })
      else open(company)
    }
  })
  socket.ws.on('CB:ack,class:message', node => acknowledged.get(node.attrs.id)?.())
}

/** Resolves when the library says that the message is sent; throws when it says that it is not. */
async function send(company, to, text) {
  try {
    return await sockets.get(company).sendMessage(to, { text })
  } catch {
    await pause(1000)
    return await sockets.get(company).sendMessage(to, { text })
  }
}

/** Sends one after another, each when WhatsApp has acknowledged the one before. */
async function keepSending(company, to, until, times) {
  for (let number = 0; Date.now() < until; number++) {
    const began = performance.now()
    const messageId = baileys.generateMessageIDV2(sockets.get(company).user?.id)
    const taken = new Promise(resolve => acknowledged.set(messageId, resolve))
    await sockets.get(company).sendMessage(to, { text: `${company} ${number}` }, { messageId })
    await taken
    acknowledged.delete(messageId)
    times.push(performance.now() - began)
  }
}

const commands = {
  async open({ companies }) {
    await Promise.all(companies.map(open))
  },
  async send({ id, company, to, text }) {
    try {
      await send(company, to, text)
      say({ event: 'sent', id })
    } catch (error) {
      say({ event: 'failed', id, error: String(error.message ?? error) })
    }
  },
  async exchange({ pairs, seconds }) {
    const times = []
    const cpu = process.cpuUsage()
    const began = performance.now()
    const until = Date.now() + seconds * 1000
    await Promise.all(pairs.map(([company, to]) => keepSending(company, to, until, times)))
    const used = process.cpuUsage(cpu)
    const elapsed_ms = performance.now() - began
    say({ event: 'exchanged', times, elapsed_ms, cpu_ms: (used.user + used.system) / 1000 })
  }
}

say({ event: 'ready' })
for await (const line of readline.createInterface({ input: process.stdin })) {
  const { do: name, ...args } = JSON.parse(line)
  commands[name](args).catch(error => say({ event: 'defect', error: String(error.stack ?? error) }))
}
process.exit(0)
