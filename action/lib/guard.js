// The guard of this job: installed, started, asked, stopped.
//
// Law: knows dnsfw's command line. The policy is written where root alone can, before it is read; the token that stops
// the guard goes by standard input alone, never by an argument or a variable that others could see.

import { existsSync, readFileSync, readdirSync } from "node:fs";
import { userInfo } from "node:os";
import { basename, dirname, join, resolve } from "node:path";

import { asRoot, CommandError, run } from "./place.js";

const STARTED_WITHIN = 30; // seconds
const YAMA = "/proc/sys/kernel/yama/ptrace_scope"; // not every kernel has it
const LARGEST_POLICY = 4 << 20;
const SIGNS = /^[A-Za-z0-9+/]{43}=$/; // 32 octets in base64

/** Files for the guard's folder: `job.policy` takes in the presets, then the job's own rules. */
export function policyFiles(inputs, workspace) {
  const file = inputs.policyFile ? resolve(workspace, inputs.policyFile) : "";
  const own = file ? basename(file) : "workflow.policy";
  const beside = neighbours(file ? dirname(file) : workspace, own);
  const text = file ? readPolicy(file, inputs.policyFile) : inputs.policy;
  const included = [...inputs.presets, own].map((name) => `@include ${name}\n`);
  return new Map([...beside, [own, text], ["job.policy", included.join("")]]);
}

/** Other policies in that folder, which the job's own may include. */
function neighbours(folder, own) {
  const names = readdirSync(folder).filter((name) => /^[\w.-]+\.policy$/.test(name) && name !== own);
  return names.map((name) => [name, readPolicy(join(folder, name), name)]);
}

function readPolicy(path, name) {
  try {
    const text = readFileSync(path, "utf8");
    if (text.length > LARGEST_POLICY) {
      throw new CommandError(`policy-file: ${name} has more than ${LARGEST_POLICY} characters.`);
    }
    return text;
  } catch (error) {
    const checkout = "Check the repository out before this step, or give the rules as `policy`.";
    throw error instanceof CommandError
      ? error
      : new CommandError(`policy-file: ${name} can't be read (${error.code}). ${checkout}`);
  }
}

/** Guards the machine from now on, or throws CommandError with dnsfw's own reason and leaves nothing. */
export async function start(place, inputs, workspace, token) {
  const files = policyFiles(inputs, workspace); // before anything is changed
  await keep(place, files);
  try {
    await asRoot(commandLine(place, inputs, userInfo().username), { seconds: STARTED_WITHIN, input: token });
    return publicKey(await statement(place, 5));
  } catch (error) {
    await asRoot([place.program, "down"], { seconds: 10 }).catch(() => {});
    await forget(place);
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
  return asRoot(["rm", "-rf", place.kept], { seconds: 2 }).catch(() => {});
}
