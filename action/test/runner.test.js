import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

import { Runner } from "../lib/runner.js";

const directory = mkdtempSync(join(tmpdir(), "dnsfw-action-"));
after(() => rmSync(directory, { recursive: true }));

function spoken(act, env = {}) {
  const lines = [];
  act(new Runner(env, (line) => lines.push(line)));
  return lines.join("");
}

test("an output goes to its command file, whatever is in it", () => {
  const file = join(directory, "output");
  const value = "one\ntwo\nEOF\nname<<x";
  spoken((runner) => runner.output("token", value), { GITHUB_OUTPUT: file });
  const [head, ...rest] = readFileSync(file, "utf8").trimEnd().split("\n");
  const [name, end] = head.split("<<");
  assert.equal(name, "token");
  assert.equal(rest.at(-1), end);
  assert.equal(rest.slice(0, -1).join("\n"), value);
});

test("a variable goes to the file of variables", () => {
  const file = join(directory, "env");
  spoken((runner) => runner.variable("CA", "/a b"), { GITHUB_ENV: file });
  assert.match(readFileSync(file, "utf8"), /^CA<<(.+)\n\/a b\n\1\n$/);
});

test("what was saved for later phases comes back; what was not is empty", () => {
  const file = join(directory, "state");
  spoken((runner) => runner.saveState("token", "secret"), { GITHUB_STATE: file });
  assert.match(readFileSync(file, "utf8"), /^token<<(.+)\nsecret\n\1\n$/);
  const later = new Runner({ STATE_token: "secret" }, () => {});
  assert.equal(later.state("token"), "secret");
  assert.equal(later.state("other"), "");
});

test("outside of a runner an output is an error, not a loss", () => {
  assert.throws(() => spoken((runner) => runner.output("a", "b")), /GITHUB_OUTPUT is not set/);
});

for (const [title, act, line] of [
  ["a mask", (runner) => runner.mask("a%b\n"), "::add-mask::a%25b%0A\n"],
  [
    "an annotation's title can't begin another property",
    (runner) => runner.annotate("warning", "a,b:c", "x\r\ny"),
    "::warning title=a%2Cb%3Ac::x%0D%0Ay\n",
  ],
  ["a line", (runner) => runner.say("hello"), "hello\n"],
  ["a line that looks like a command", (runner) => runner.say("::stop-commands::x"), ": :stop-commands::x\n"],
  ["a second line like a command", (runner) => runner.say("a\n ::error::x"), "a\n : :error::x\n"],
  ["an old command in the midst of a line", (runner) => runner.say("a ##[error]x"), "a ## [error]x\n"],
]) {
  test(`${title} is written as the runner reads it`, () => assert.equal(spoken(act), line));
}

test("what another program says is no command, whether it ends well or not", async () => {
  const lines = [];
  const runner = new Runner({}, (line) => lines.push(line));
  const act = () => {
    runner.write("::error::x");
    throw new Error("why");
  };
  await assert.rejects(runner.quoting(act), /why/);
  assert.match(lines.join(""), /^::stop-commands::(.+)\n::error::x\n::\1::\n$/);
});

test("a summary is appended where the runner wants one, and nowhere else", () => {
  const file = join(directory, "summary");
  spoken((runner) => runner.summarize("# one"), { GITHUB_STEP_SUMMARY: file });
  spoken((runner) => runner.summarize("# two"), { GITHUB_STEP_SUMMARY: file });
  spoken((runner) => runner.summarize("# three"));
  assert.equal(readFileSync(file, "utf8"), "# one\n# two\n");
});
