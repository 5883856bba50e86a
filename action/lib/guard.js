// The guard of this job: installed, started, asked, stopped.
//
// Law: knows dnsfw's command line. The policy is written where root alone can, before it is read; the token that stops
// the guard goes by standard input alone, never by an argument or a variable that others could see.

import {
  closeSync, constants, existsSync, fstatSync, openSync, readFileSync, readdirSync, readlinkSync, statSync,
} from "node:fs";
import { userInfo } from "node:os";
import { basename, dirname, join, resolve } from "node:path";

import { asRoot, CommandError, run } from "./place.js";

const STARTED_WITHIN = 30; // seconds
const YAMA = "/proc/sys/kernel/yama/ptrace_scope"; // not every kernel has it
const LARGEST_POLICY = 4 << 20; // octets
const MOST_NEIGHBOURS = 100;
const RUNS = "/run/dnsfw";
const SIGNS = /^[A-Za-z0-9+/]{43}=$/; // 32 octets in base64

/** Files for the guard's folder: `job.policy` takes in the presets, then the job's own rules. */
export function policyFiles(inputs, workspace) {
  const file = inputs.policyFile ? resolve(workspace, inputs.policyFile) : "";
  const own = file && nameable(basename(file)) ? basename(file) : "workflow.policy";
  const text = file ? readPolicy(file, inputs.policyFile) : inputs.policy;
  const beside = neighbours(file ? dirname(file) : workspace, own);
  const included = [...inputs.presets, own].map((name) => `@include ${name}\n`);
  return new Map([...beside, [own, text], ["job.policy", included.join("")]]);
}

/** Can `@include` name it, beside the one that is ours? */
function nameable(name) {
  return /^\w[\w.-]*$/.test(name) && name !== "job.policy";
}

/** Other policies in that folder, which the job's own may include. */
function neighbours(folder, own) {
  const names = existsSync(folder) ? readdirSync(folder) : [];
  const policies = names.filter((name) => name.endsWith(".policy") && nameable(name) && name !== own);
  const found = policies.filter((name) => statSync(join(folder, name), { throwIfNoEntry: false })?.isFile());
  if (found.length > MOST_NEIGHBOURS) {
    throw new CommandError(`policy-file: more than ${MOST_NEIGHBOURS} policies are in ${folder}.`);
  }
  return found.map((name) => [name, readPolicy(join(folder, name), name)]);
}

/** A workspace may hold anything: what is no file would be read for ever. */
function readPolicy(path, name) {
  let file;
  try {
    file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const found = fstatSync(file);
    if (!found.isFile() || found.size > LARGEST_POLICY) {
      throw new CommandError(`policy-file: ${name} is no file of ${LARGEST_POLICY} octets at most.`);
    }
    return readFileSync(file, "utf8");
  } catch (error) {
    const checkout = "Check the repository out before this step, or give the rules as `policy`.";
    throw error instanceof CommandError
      ? error
      : new CommandError(`policy-file: ${name} can't be read (${error.code}). ${checkout}`);
  } finally {
    if (file !== undefined) {
      closeSync(file);
    }
  }
}

/** Guards the machine from now on, or throws CommandError with dnsfw's own reason and leaves nothing. */
export async function start(place, inputs, workspace, token) {
  const files = policyFiles(inputs, workspace); // before anything is changed
  try {
    await keep(place, files);
    // Where this fails it leaves nothing itself, and a guard that was here before is not ours to end.
    await asRoot(commandLine(place, inputs, userInfo().username), { seconds: STARTED_WITHIN, input: token });
    return await introduced(place, token);
  } catch (error) {
    await forget(place);
    throw error;
  }
}

/** The key by which the guard that has just begun is known; one that can't say is stopped. */
async function introduced(place, token) {
  try {
    return publicKey(await statement(place, 5));
  } catch (error) {
    const ended = stop(place, token, 10); // by the token: sudo is gone by now
    await ended.catch(() => asRoot([place.program, "down"], { seconds: 10 })).catch(() => {});
    throw error;
  }
}

async function keep(place, files) {
  await asRoot(["rm", "-rf", place.kept], { seconds: 10 });
  await asRoot(["mkdir", "-m", "700", "-p", place.kept], { seconds: 10 });
  for (const [name, text] of files) {
    await asRoot(["tee", join(place.kept, name)], { seconds: 10, input: text });
  }
}

/** `user` is the job's, by name; root can be locked out of nothing. */
export function commandLine(place, inputs, user) {
  return [
    place.program, "up", "--detach", "--set-resolver", "--install-ca", "--token-file", "-",
    "--policy", join(place.kept, "job.policy"),
    "--journal", join(place.kept, "journal.jsonl"),
    ...(inputs.mode === "audit" ? ["--audit"] : []),
    ...inputs.upstream.flatMap((server) => ["--upstream", server]),
    ...(inputs.allowSudo || user === "root" ? [] : ["--lock-sudo", user]),
    ...(inputs.allowContainers || user === "root" ? [] : ["--lock-containers", user]),
    "--lock-user-namespaces",
    ...(existsSync(YAMA) ? ["--lock-ptrace"] : []),
  ];
}

/** What the guard says of itself until now, signed: `{report, signature, key}`. */
export async function statement(place, seconds) {
  return JSON.parse(await run([place.program, "report", "--statement"], { seconds }));
}

function publicKey({ key }) {
  if (!SIGNS.test(key)) {
    throw new CommandError("the guard named no key that it signs with");
  }
  return key;
}

/** The variables by which programs with roots of their own trust the guard's proxy; none where it has no proxy. */
export function trusting(runs = RUNS) {
  const host = readlinkSync("/proc/self/ns/net").match(/\d+/)[0];
  const script = join(runs, `up-${host}`, "trust/environment.sh");
  const text = existsSync(script) ? readFileSync(script, "utf8") : "";
  return [...text.matchAll(/^export (\w+)=(.*)$/gm)].map(([, name, word]) => [name, unquoted(word)]);
}

/** A word that shlex.quote of Python's made. */
function unquoted(word) {
  return word.startsWith("'") ? word.slice(1, -1).replaceAll(`'"'"'`, "'") : word;
}

/** Takes the guard down and gives back what it locked. */
export function stop(place, token, seconds) {
  return run([place.program, "stop", "--token-file", "-"], { seconds, input: token });
}

/** `wanted` is on or off. */
export function sudo(place, wanted, token, seconds) {
  return run([place.program, "sudo", wanted, "--token-file", "-"], { seconds, input: token });
}

/** The journal's bytes. Once the guard is down sudo works again. */
export function journal(place, seconds) {
  return asRoot(["cat", join(place.kept, "journal.jsonl")], { seconds });
}

export function forget(place) {
  return asRoot(["rm", "-rf", place.kept], { seconds: 1 }).catch(() => {});
}
