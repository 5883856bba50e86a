// Where things are on the machine, and programs of root's.
//
// Law: the one file that starts programs. What a later step must not touch is in folders that root alone may write or
// read: the program, the policy, the journal. Not below /opt: on GitHub's images anybody may write there. Every wait is
// bounded.

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";

const ROOMS = ["policy", "resolver", "firewall", "bpf", "proxy", "dnsfw", "requirements", "scripts"];
const CACHE = "__pycache__";
const PATH = "/usr/sbin:/usr/bin:/sbin:/bin";

export class CommandError extends Error {}

/** `source` is this action's own checkout, `installed` what it is installed to, `kept` the job's folder of root's. */
export class Place {
  constructor(source, root = "/") {
    this.source = source;
    this.version = readFileSync(join(source, "dnsfw/__init__.py"), "utf8").match(/__version__ = "(.+)"/)[1];
    this.key = `${this.version}-${digest(source).slice(0, 16)}`;
    this.installed = join(root, "var/lib/dnsfw-action", this.key);
    this.program = join(this.installed, "bin/dnsfw");
    this.kept = join(root, "var/lib/dnsfw-job");
  }
}

/** SHA-256 of what is installed: other sources are another folder. */
function digest(source) {
  const hash = createHash("sha256");
  for (const room of ROOMS) {
    for (const path of readdirSync(join(source, room), { recursive: true }).sort()) {
      const file = join(source, room, path);
      if (!path.includes(CACHE) && statSync(file).isFile()) {
        hash.update(`${room}/${path}\0`).update(readFileSync(file));
      }
    }
  }
  return hash.digest("hex");
}

/** What `argv` printed. Raises CommandError with its own words if it fails or takes longer than `seconds`. */
export async function run(argv, { seconds, input = "", watch = () => {}, called = argv.slice(0, 3).join(" ") }) {
  const child = spawn(argv[0], argv.slice(1), { env: environment(process.env), stdio: ["pipe", "pipe", "pipe"] });
  const said = { stdout: "", stderr: "" };
  for (const stream of ["stdout", "stderr"]) {
    child[stream].setEncoding("utf8").on("data", (text) => {
      said[stream] += text;
      watch(text);
    });
  }
  child.stdin.on("error", () => {}); // it may not want its input
  child.stdin.end(input);
  const { promise: ended, resolve: end } = Promise.withResolvers();
  child.on("error", (error) => end([error.message]));
  child.on("close", (...how) => end(how));
  const timer = setTimeout(() => {
    end([null, "late"]);
    abandon(child);
  }, seconds * 1000);
  const [status, signal] = await ended;
  clearTimeout(timer);
  if (status === 0) {
    return said.stdout;
  }
  const how = signal ? `ended after ${seconds} s` : `ended with ${status}`;
  throw new CommandError(said.stderr.trim() || `${called} ${how}`);
}

/** Nobody waits for it any more, nor for its children, which hold the same pipes. */
function abandon(child) {
  child.kill("SIGTERM");
  child.unref();
  child.stdio.forEach((stream) => stream.destroy());
}

/** An earlier step may have put folders of its own before the system's (GITHUB_PATH), and variables for Python. */
export function environment(env) {
  const kept = Object.entries(env).filter(([name]) => !/^(PYTHON.+|BASH_ENV)$/.test(name));
  return { ...Object.fromEntries(kept), PATH: [PATH, env.PATH].filter(Boolean).join(":") };
}

/** The same as root: by sudo where we are not root. It asks for no password; a job could not give one. What root runs
 * is not ours to kill: timeout(1) is. */
export function asRoot(argv, options) {
  const bounded = ["timeout", "--kill-after=5", String(options.seconds + 1), ...argv];
  const sudo = process.getuid() === 0 ? [] : ["sudo", "--non-interactive", "--"];
  return run([...sudo, ...bounded], { called: argv.slice(0, 3).join(" "), ...options });
}
