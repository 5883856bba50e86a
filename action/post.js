// After the job's steps: stop, and show what was done.
import { finish } from "./lib/phases.js";
import { step } from "./lib/step.js";

await step(finish);
