// The step: guard the job from here on.
import { begin } from "./lib/phases.js";
import { step } from "./lib/step.js";

await step(begin);
