// Where things are on the machine, and programs of root's.
//
// Law: the one file that starts programs. What a later step must not touch is in folders that root alone may write or
// read: the program, the policy, the journal. Every wait is bounded.

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";

const ROOMS = ["policy", "resolver", "firewall", "bpf", "proxy", "dnsfw", "requirements", "scripts"];
const CACHE = "__pycache__";

export class CommandError extends Error {}

/** `source` is this action's own checkout, `installed` what it is installed to, `kept` the job's folder of root's. */
export class Place {
  constructor(source, root = "/") {
    this.source = source;
    this.version = readFileSync(join(source, "dnsfw/__init__.py"), "utf8").match(/__version__ = "(.+)"/)[1];
    this.key = `${this.version}-${digest(source).slice(0, 16)}`;
    this.installed = join(root, "opt/dnsfw", this.key);
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
export async function run(argv, { seconds, input = "", env = process.env, watch = () => {} }) {
  const child = spawn(argv[0], argv.slice(1), { env, stdio: ["pipe", "pipe", "pipe"] });
  const said = { stdout: "", stderr: "" };
  for (const stream of ["stdout", "stderr"]) {
    child[stream].setEncoding("utf8").on("data", (text) => {
      said[stream] += text;
      watch(text);
    });
  }
  child.stdin.on("error", () => {}); // it may not want its input
  child.stdin.end(input);
  const timer = setTimeout(() => child.kill("SIGKILL"), seconds * 1000);
  const [status, signal] = await new Promise((resolve) => {
    child.on("error", (error) => resolve([error.message]));
    child.on("close", (...ended) => resolve(ended));
  });
  clearTimeout(timer);
  if (status === 0) {
    return said.stdout;
  }
  const how = signal ? `ended after ${seconds} s` : `ended with ${status}`;
  throw new CommandError(said.stderr.trim() || `${argv.slice(0, 3).join(" ")} ${how}`);
}

/** The same as root: by sudo where we are not root. It asks for no password; a job could not give one. */
export function asRoot(argv, options) {
  return run(process.getuid() === 0 ? argv : ["sudo", "--non-interactive", "--", ...argv], options);
}
