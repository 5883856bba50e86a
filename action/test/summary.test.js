import assert from "node:assert/strict";
import { test } from "node:test";

import { annotations, summary, verdict } from "../lib/summary.js";

const ROW = {
  what: "resolve evil.test", why: "no rule names it", reason: "no-rule", process: "/usr/bin/node x.js (pid 7)",
  step: "install", action: "", remedy: "evil.test", count: 2,
};

const KILLED = { reason: "SIGKILL", seconds: 0.44, closed: true };

function report(changes = {}) {
  return {
    v: 1, mode: "enforce", since: "2026-01-01T00:00:00Z", until: "2026-01-01T00:01:00Z", policy: "0".repeat(64),
    allowed: 3, denied: 2, denials: [ROW], reached: [{ host: "a.example", count: 3 }], gaps: [], trouble: [],
    ...changes,
  };
}

test("the verdict is one line", () => {
  assert.equal(verdict(report()), "dnsfw: 2 denied, 3 allowed");
  assert.equal(verdict(report({ denied: 0 })), "dnsfw: nothing denied, 3 allowed");
  assert.equal(verdict(report({ mode: "audit" })), "dnsfw: 2 would have been denied, 3 allowed");
});

test("a denial's row has what, step, process, why and the line that would allow it", () => {
  const row = summary(report()).split("\n").find((line) => line.includes("evil"));
  assert.equal(
    row,
    "| <code>resolve evil.test</code> ×2 | <code>install</code> | <code>/usr/bin/node x.js (pid 7)</code> | " +
      "<code>no rule names it</code> | <code>evil.test</code> |",
  );
});

for (const [title, changes, said, unsaid] of [
  ["without a gap", {}, /up without a gap/, /gaps?:/],
  ["with a gap", { gaps: [KILLED] }, /down for 0.4 s .*SIGKILL.* closed/, /\*\*open/],
  ["with an open gap", { gaps: [{ ...KILLED, closed: false }] }, /\*\*open\*\* meanwhile/, /without a gap/],
  ["signed", {}, /statement signed by the guard/, /wrong/],
  ["with nothing denied", { denials: [], denied: 0 }, /a\.example/, /### Denied/],
  ["with trouble", { trouble: ["3 journal records lost"] }, /\[!WARNING\]\n> <code>3 journal/, /undefined/],
  ["in audit mode", { mode: "audit" }, /### Would have been denied/, /### Denied/],
]) {
  test(`a report ${title}`, () => {
    const text = summary(report(changes));
    assert.match(text, said);
    assert.doesNotMatch(text, unsaid);
  });
}

test("nothing that a process chose is Markdown or HTML", () => {
  const hostile = "</code><img src=x onerror=alert(1)>|`*_[x](y)\n\u202ehttps://x.example www.x.example";
  const denials = [{ ...ROW, what: hostile, process: hostile, remedy: hostile, why: hostile, step: hostile }];
  const reached = [{ host: hostile, count: 1 }];
  const text = summary(report({ denials, reached, trouble: [hostile] }));
  assert.doesNotMatch(text, /<img|onerror=alert\(1\)>|\[x\]|\u202e|&#8238;|:\/\/|www\./);
  assert.match(text, /&#92;u&#123;202e&#125;/);
  const row = text.split("\n").find((line) => line.includes("img"));
  assert.equal(row.split("|").length, 7); // five cells, no more
});

test("tables are bounded, and say that they are", () => {
  const denials = Array.from({ length: 200 }, (_, number) => ({ ...ROW, what: `resolve evil${number}.test` }));
  const text = summary(report({ denials }));
  assert.equal(text.match(/evil\d+\.test/g).length, 50);
  assert.match(text, /… and 150 more/);
  assert.equal(annotations(report({ denials })).length, 10);
});

test("an annotation says by whom, in which step, why and what to do", () => {
  assert.deepEqual(annotations(report()), [
    {
      title: "Denied: resolve evil.test",
      text: "by /usr/bin/node x.js (pid 7), step install\nno rule names it\nto allow it: evil.test",
    },
  ]);
});
