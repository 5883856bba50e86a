import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readlinkSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

import { policyFiles, trusting } from "../lib/guard.js";

const made = mkdtempSync(join(tmpdir(), "dnsfw-action-"));
const workspace = join(made, "a workspace, w\u00eeth odd characters");
mkdirSync(workspace);
after(() => rmSync(made, { recursive: true }));

function files(policyFile, policy = "") {
  return Object.fromEntries(policyFiles({ policyFile, policy, presets: ["os-basics"] }, workspace));
}

function folder(name, contents) {
  mkdirSync(join(workspace, name));
  Object.entries(contents).forEach(([file, text]) => writeFileSync(join(workspace, name, file), text));
  return join(workspace, name);
}

test("the job's policy takes in the presets, then its own, which may take in its neighbours", () => {
  folder("sound", { "ci.policy": "@include more.policy\n", "more.policy": "a.example\n", "other.txt": "" });
  assert.deepEqual(files("sound/ci.policy"), {
    "more.policy": "a.example\n", "ci.policy": "@include more.policy\n",
    "job.policy": "@include os-basics\n@include ci.policy\n",
  });
  assert.deepEqual(files("", "b.example\n"), {
    "workflow.policy": "b.example\n", "job.policy": "@include os-basics\n@include workflow.policy\n",
  });
});

for (const [number, name] of ["job.policy", "with a space.policy", "-x.policy", "a\nb.policy"].entries()) {
  test(`a file that no policy can include by its name (${JSON.stringify(name)}) is taken under another`, () => {
    const where = `named-${number}`;
    folder(where, { [name]: "c.example\n" });
    const found = files(`${where}/${name}`);
    assert.equal(found["workflow.policy"], "c.example\n");
    assert.equal(found["job.policy"], "@include os-basics\n@include workflow.policy\n");
  });
}

test("neighbours that are no files are left alone: nobody waits for a pipe, or reads a device for ever", () => {
  const where = folder("odd", { "ci.policy": "d.example\n" });
  execFileSync("mkfifo", [join(where, "pipe.policy")]);
  symlinkSync("/dev/zero", join(where, "zero.policy"));
  symlinkSync("nowhere", join(where, "nowhere.policy"));
  mkdirSync(join(where, "folder.policy"));
  assert.deepEqual(Object.keys(files("odd/ci.policy")), ["ci.policy", "job.policy"]);
});

test("neither is one of them a policy", () => {
  const where = folder("no", { "large.policy": "" });
  execFileSync("mkfifo", [join(where, "pipe")]);
  truncateSync(join(where, "large.policy"), (4 << 20) + 1);
  assert.throws(() => files("no/pipe"), /policy-file: no\/pipe is no file/);
  assert.throws(() => files("/dev/zero"), /policy-file: \/dev\/zero is no file/);
  assert.throws(() => files("no/large.policy"), /policy-file: no\/large.policy is no file of 4194304 octets/);
  assert.throws(() => files("no"), /policy-file: no is no file/);
  assert.throws(() => files("missing/ci.policy"), /missing\/ci.policy can't be read \(ENOENT\). Check the repo/);
});

test("neighbours are bounded", () => {
  const names = Array.from({ length: 102 }, (_, number) => [`${number}.policy`, ""]);
  folder("many", Object.fromEntries(names));
  assert.throws(() => files("many/0.policy"), /more than 100 policies/);
});

test("what programs need to trust the proxy is read as a shell would", () => {
  const runs = join(made, "run");
  assert.deepEqual(trusting(runs), []);
  const trust = join(runs, `up-${readlinkSync("/proc/self/ns/net").match(/\d+/)[0]}`, "trust");
  mkdirSync(trust, { recursive: true });
  const script = `export PIP_CERT=/run/ca.crt\nexport JAVA_TOOL_OPTIONS='-Da=b -Dc='"'"'d'"'"''\n`;
  writeFileSync(join(trust, "environment.sh"), script);
  assert.deepEqual(trusting(runs), [["PIP_CERT", "/run/ca.crt"], ["JAVA_TOOL_OPTIONS", "-Da=b -Dc='d'"]]);
});
