// sudo, on.
import { sudo } from "../lib/phases.js";
import { step } from "../lib/step.js";

await step(sudo("on"), "sudo is not on");
