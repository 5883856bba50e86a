// The three phases of the step.
//
// Law: composition. A failure before the guard is up fails the job, whatever the mode; one after it is told, and never
// holds the job up.

import { createPublicKey, randomBytes, verify } from "node:crypto";

import * as guard from "./guard.js";
import { readInputs } from "./inputs.js";
import { install } from "./install.js";
import { Results } from "./results.js";
import { annotations, summary, verdict } from "./summary.js";
import { zip } from "./zip.js";

const UPLOADED_BY = 8_000; // milliseconds after the end began; what is waited for after it is below two seconds
const ROOTS = "/etc/ssl/certs/ca-certificates.crt"; // Debian's and Ubuntu's
const ED25519 = Buffer.from("302a300506032b6570032100", "hex"); // before a key's octets: RFC 8410 section 4

/** Before any step: all that can be done without the workspace. */
export async function prepare(runner, place) {
  readInputs(runner.env, place.version); // a mistake is told before anything is done
  await install(runner, place);
}

/** Guards the job from here on. */
export async function begin(runner, place) {
  const inputs = readInputs(runner.env, place.version);
  await install(runner, place); // again: a local action has no phase before this one
  const token = randomBytes(32).toString("hex");
  runner.mask(token);
  runner.saveState("token", token); // before there is a guard: it can be stopped whatever becomes of this phase
  const key = await guard.start(place, inputs, runner.env.GITHUB_WORKSPACE ?? process.cwd(), token);
  runner.saveState("key", key);
  runner.saveState("program", place.program); // later the sources may be others
  runner.saveState("inputs", JSON.stringify(inputs)); // and every step may have set variables
  runner.output("token", token);
  runner.output("key", key);
  haveTrusted(runner);
  const audit = inputs.mode === "audit" ? " (audit: nothing is denied)" : "";
  runner.say(`dnsfw guards this job${audit}. It signs with ${key}`);
}

/** Later steps' programs trust the guard's proxy, but where the job named roots itself. */
function haveTrusted(runner) {
  const variables = guard.trusting();
  const own = variables.map(([name]) => name).filter((name) => runner.env[name]);
  const made = variables.filter(([name]) => !own.includes(name));
  made.forEach(([name, value]) => runner.variable(name, value));
  runner.saveState("trusting", made.map(([name]) => name).join(" "));
  if (own.length > 0) {
    runner.say(`dnsfw: ${own.join(", ")} stay as the job has them; who reads them may not trust dnsfw's proxy`);
  }
}

/** What was to be trusted is gone: the machine's own roots again, for steps that still come. */
function haveForgotten(runner) {
  const names = runner.state("trusting").split(" ").filter(Boolean);
  names.forEach((name) => runner.variable(name, name === "JAVA_TOOL_OPTIONS" ? "" : ROOTS));
}

/** A step of its own, between: sudo `wanted` (on, off) for the job. */
export function sudo(wanted) {
  return async (runner, place) => {
    const token = runner.env.INPUT_TOKEN ?? "";
    if (!token) {
      throw new Error("token: give the output `token` of the step that began the guard.");
    }
    await guard.sudo(place, wanted, token, 10);
    runner.say(`dnsfw: sudo is ${wanted}`);
  };
}

/** After the last step: takes the guard down, shows what it did. True if the job may pass. */
export async function finish(runner, place) {
  const token = runner.state("token");
  if (!runner.state("key")) { // it never began, and the job has failed for that already
    await guard.stop(place, token, 2).then(() => guard.forget(place)).catch(() => {});
    return true;
  }
  const inputs = JSON.parse(runner.state("inputs"));
  const deadline = AbortSignal.timeout(UPLOADED_BY);
  place.program = runner.state("program");
  const report = await vouched(runner, place);
  await guard.stop(place, token, 2).catch((error) => runner.annotate("warning", "dnsfw: not stopped", error.message));
  haveForgotten(runner);
  if (report !== null) {
    show(runner, inputs, report);
  }
  if (inputs.journal === "always" || (inputs.journal === "on-denial" && report?.denied !== 0)) {
    await upload(runner, place, deadline);
  }
  await guard.forget(place);
  return report !== null && !(inputs.failOnDeny && report.denied > 0);
}

/** The report that the guard signed, null where nobody vouches for one: that is told, and shown is nothing of it. */
async function vouched(runner, place) {
  let said;
  try {
    said = await guard.statement(place, 4);
  } catch (error) {
    runner.annotate("error", "dnsfw: the guard is not there", `What left since it began is unknown. ${error.message}`);
    return null;
  }
  if (!isSigned(said, runner.state("key"))) {
    runner.annotate("error", "dnsfw: a wrong signature", "Another program answered in the guard's name.");
    return null;
  }
  runner.say(`The guard's statement, for dnsfw report --verify ${runner.state("key")}:`);
  runner.say(JSON.stringify(said).replaceAll("#", "\\u0023")); // the same JSON, and no command
  return JSON.parse(said.report);
}

function show(runner, inputs, report) {
  if (inputs.summary) {
    runner.summarize(summary(report));
  }
  runner.say(verdict(report));
  annotations(report).forEach(({ title, text }) => runner.annotate("warning", title, text));
}

/** Is it the statement of the guard that began with this key? */
export function isSigned(said, key) {
  try {
    const octets = Buffer.concat([ED25519, Buffer.from(key, "base64")]);
    const known = createPublicKey({ key: octets, format: "der", type: "spki" });
    return verify(null, Buffer.from(said.report), known, Buffer.from(said.signature, "base64"));
  } catch {
    return false; // not even a key or a signature
  }
}

async function upload(runner, place, deadline) {
  const which = Buffer.from(runner.state("key"), "base64").toString("hex").slice(0, 8); // a matrix has jobs of one name
  const name = `dnsfw-journal-${runner.env.GITHUB_JOB ?? "job"}-${runner.env.GITHUB_RUN_ATTEMPT ?? "1"}-${which}`;
  try {
    const text = await guard.journal(place, 2);
    await new Results(runner.env, deadline).saveArtifact(name, zip("journal.jsonl", Buffer.from(text)));
    runner.say(`The journal is the artifact ${name}.`);
  } catch (error) {
    runner.annotate("warning", "dnsfw: the journal was not uploaded", error.message);
  }
}
