// What the runner and a step say to each other: variables in, command files and log lines out.
//
// Law: knows GitHub's protocol and nothing of dnsfw. Source: GitHub's documentation, "Workflow commands for GitHub
// Actions", and the variables that it gives to JavaScript actions.

import { appendFileSync } from "node:fs";
import { randomUUID } from "node:crypto";

/** The step's side of the conversation. `env` is the step's environment, `write` takes log lines. */
export class Runner {
  constructor(env, write) {
    this.env = env;
    this.write = write;
  }

  /** A value for `outputs.<name>` of this step. */
  output(name, value) {
    this.#file("GITHUB_OUTPUT", name, value);
  }

  /** A value that only this action's later phases get, as `state(name)`. */
  saveState(name, value) {
    this.#file("GITHUB_STATE", name, value);
  }

  /** An environment variable for the steps to come. */
  variable(name, value) {
    this.#file("GITHUB_ENV", name, value);
  }

  /** What an earlier phase saved, "" if it saved nothing. */
  state(name) {
    return this.env[`STATE_${name}`] ?? "";
  }

  /** Markdown for the job's page. */
  summarize(markdown) {
    const path = this.env.GITHUB_STEP_SUMMARY;
    if (path) {
      appendFileSync(path, `${markdown}\n`);
    }
  }

  /** From now on the runner hides `secret` in every log. */
  mask(secret) {
    this.#command("add-mask", {}, secret);
  }

  /** An annotation: `level` is notice, warning or error. */
  annotate(level, title, text) {
    this.#command(level, { title }, text);
  }

  /** A plain line of the log. Commands begin with :: at a line's begin, and with ##[ anywhere in it: here none does. */
  say(line) {
    this.write(`${line.replaceAll("##[", "## [").replace(/^(\s*)::/gm, "$1: :")}\n`);
  }

  /** Whatever is written while `act` runs is no command. */
  async quoting(act) {
    const end = randomUUID();
    this.#command("stop-commands", {}, end);
    try {
      return await act();
    } finally {
      this.write(`\n::${end}::\n`);
    }
  }

  #command(name, properties, text) {
    const pairs = Object.entries(properties).map(([key, value]) => `${key}=${escaped(value, /[%\r\n:,]/g)}`);
    this.write(`::${[name, pairs.join(",")].filter(Boolean).join(" ")}::${escaped(text, /[%\r\n]/g)}\n`);
  }

  #file(variable, name, value) {
    const path = this.env[variable];
    if (!path) {
      throw new Error(`${variable} is not set: this is not a runner's step`);
    }
    const end = `dnsfw-${randomUUID()}`; // nothing in the value can end it early
    appendFileSync(path, `${name}<<${end}\n${value}\n${end}\n`);
  }
}

function escaped(text, special) {
  return text.replace(special, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`);
}
