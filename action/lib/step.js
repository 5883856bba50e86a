// One phase as a program.
//
// Law: the one place that reads this process's environment and sets its exit status.

import { join } from "node:path";

import { Place } from "./place.js";
import { Runner } from "./runner.js";

/** Runs `phase(runner, place)`: the step fails if it throws, `failed` then says what that means, or says false. */
export async function step(phase, failed = "this job is not guarded") {
  const runner = new Runner(process.env, (text) => process.stdout.write(text));
  try {
    const passed = await phase(runner, new Place(join(import.meta.dirname, "../..")));
    process.exitCode = passed === false ? 1 : 0;
  } catch (error) {
    runner.annotate("error", `dnsfw: ${failed}`, error.message);
    process.exitCode = 1;
  }
}
