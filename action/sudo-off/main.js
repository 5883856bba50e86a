// sudo, off.
import { sudo } from "../lib/phases.js";
import { step } from "../lib/step.js";

await step(sudo("off"), "sudo is not off");
