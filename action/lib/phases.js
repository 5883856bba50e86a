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

const UPLOADED_BY = 8_000; // milliseconds after the end began: with all other waits it comes to ten seconds
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
  const key = await guard.start(place, inputs, runner.env.GITHUB_WORKSPACE ?? process.cwd(), token);
  runner.saveState("token", token);
  runner.saveState("key", key);
  runner.output("token", token);
  runner.output("key", key);
  const audit = inputs.mode === "audit" ? " (audit: nothing is denied)" : "";
  runner.say(`dnsfw guards this job${audit}. It signs with ${key}`);
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
  if (!token) {
    return true; // it never began, and the job has failed for that already
  }
  const inputs = readInputs(runner.env, place.version);
  const deadline = AbortSignal.timeout(UPLOADED_BY);
  const report = await tell(runner, inputs, place);
  await guard.stop(place, token, 2).catch((error) => runner.annotate("warning", "dnsfw: not stopped", error.message));
  if (inputs.journal === "always" || (inputs.journal === "on-denial" && report?.denied !== 0)) {
    await upload(runner, place, deadline);
  }
  await guard.forget(place);
  return report !== null && !(inputs.failOnDeny && report.denied > 0);
}

/** Shows the guard's statement; the report in it, null where nobody vouches for one. */
async function tell(runner, inputs, place) {
  let said;
  try {
    said = await guard.statement(place, 4);
  } catch (error) {
    runner.annotate("error", "dnsfw: the guard is not there", `What left since it began is unknown. ${error.message}`);
    return null;
  }
  const report = JSON.parse(said.report);
  const signed = isSigned(said, runner.state("key"));
  if (inputs.summary) {
    runner.summarize(summary(report, signed));
  }
  runner.say(verdict(report));
  annotations(report).forEach(({ title, text }) => runner.annotate("warning", title, text));
  if (!signed) {
    runner.annotate("error", "dnsfw: a wrong signature", "Another program answered in the guard's name.");
  }
  return signed ? report : null;
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
  const name = `dnsfw-journal-${runner.env.GITHUB_JOB ?? "job"}-${runner.env.GITHUB_RUN_ATTEMPT ?? "1"}`;
  try {
    const text = await guard.journal(place, 2);
    await new Results(runner.env, deadline).saveArtifact(name, zip("journal.jsonl", Buffer.from(text)));
    runner.say(`The journal is the artifact ${name}.`);
  } catch (error) {
    runner.annotate("warning", "dnsfw: the journal was not uploaded", error.message);
  }
}
