// Before the job's steps: install.
import { prepare } from "./lib/phases.js";
import { step } from "./lib/step.js";

await step(prepare);
