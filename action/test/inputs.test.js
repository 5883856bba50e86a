import assert from "node:assert/strict";
import { test } from "node:test";

import { InputError, readInputs } from "../lib/inputs.js";

function read(given) {
  const env = Object.entries(given).map(([name, value]) => [`INPUT_${name.toUpperCase()}`, value]);
  return readInputs({ PATH: "/bin", ...Object.fromEntries(env) }, "0.1.0");
}

test("what action.yml has as defaults is taken as it is", () => {
  const inputs = read({
    policy: "a.example\n", "policy-file": "", mode: "enforce", presets: "github-runner os-basics", upstream: "",
    "allow-sudo": "false", "allow-containers": "false", "fail-on-deny": "false", journal: "on-denial", summary: "true",
    version: "",
  });
  assert.deepEqual(inputs, {
    policy: "a.example\n", policyFile: "", mode: "enforce", presets: ["github-runner", "os-basics"], upstream: [],
    allowSudo: false, allowContainers: false, failOnDeny: false, journal: "on-denial", summary: true,
  });
  assert.ok(Object.isFrozen(inputs));
});

for (const [title, given, field, value] of [
  ["audit needs no policy", { mode: "audit" }, "policy", ""],
  [
    "lists by lines, commas and blanks",
    { mode: "audit", upstream: "192.0.2.1, [2001:db8::1]:53\ntls://192.0.2.2#dns.example" },
    "upstream",
    ["192.0.2.1", "[2001:db8::1]:53", "tls://192.0.2.2#dns.example"],
  ],
  ["no presets", { policy: "a.example", presets: "" }, "presets", []],
  ["YAML's other words for true", { policy: "a.example", "allow-sudo": "TRUE" }, "allowSudo", true],
  ["the version it is", { policy: "a.example", version: "v0.1.0" }, "mode", "enforce"],
  ["a file instead of a policy", { "policy-file": " p.policy ", policy: "\n" }, "policyFile", "p.policy"],
]) {
  test(title, () => assert.deepEqual(read(given)[field], value));
}

for (const [title, given, ...named] of [
  ["nothing to enforce", {}, "policy"],
  ["two policies", { policy: "a.example", "policy-file": "p" }, "policy and policy-file"],
  ["an unknown input", { policy: "a.example", polcy: "b.example" }, "polcy", "policy-file"],
  ["an unknown mode", { policy: "a.example", mode: "Enforce!" }, "mode", "audit"],
  ["neither true nor false", { policy: "a.example", "allow-sudo": "yes" }, "allow-sudo", "yes"],
  ["denials that fail where nothing is denied", { mode: "audit", "fail-on-deny": "true" }, "fail-on-deny"],
  ["a preset that is a path", { policy: "a.example", presets: "../../etc/passwd" }, "presets"],
  ["an upstream that is an option", { policy: "a.example", upstream: "$(id)" }, "upstream"],
  ["a journal's unknown word", { policy: "a.example", journal: "sometimes" }, "journal", "on-denial"],
  ["another version", { policy: "a.example", version: "0.2.0" }, "version", "0.1.0", "@v0.2.0"],
  ["every mistake at once", { mode: "x", journal: "y", summary: "z" }, "mode", "journal", "summary"],
]) {
  test(`${title}: refused by name`, () => {
    const names = (error) => error instanceof InputError && named.every((name) => error.message.includes(name));
    assert.throws(() => read(given), names);
  });
}
