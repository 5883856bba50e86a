import assert from "node:assert/strict";
import { test } from "node:test";

import { CommandError, environment, run } from "../lib/place.js";

test("what a program printed comes back; where it fails, its own words are the reason", async () => {
  assert.equal(await run(["cat"], { seconds: 10, input: "in" }), "in");
  const said = (error) => error instanceof CommandError && error.message === "why";
  await assert.rejects(run(["sh", "-c", "echo why >&2; exit 3"], { seconds: 10 }), said);
  await assert.rejects(run(["sh", "-c", "exit 3"], { seconds: 10 }), /sh -c exit 3 ended with 3/);
  await assert.rejects(run(["/no/such/program"], { seconds: 10 }), /ENOENT/);
});

test("nobody waits for one that is late, nor for its children that hold the pipe", async () => {
  const began = performance.now();
  await assert.rejects(run(["sh", "-c", "sleep 5 & wait"], { seconds: 0.2 }), /ended after 0.2 s/);
  assert.ok(performance.now() - began < 4_000);
});

test("a folder that an earlier step put into the path comes after the system's; Python hears nothing of it", () => {
  assert.deepEqual(environment({ PATH: "/hostile", PYTHONPATH: "/hostile", BASH_ENV: "x", LANG: "C" }), {
    LANG: "C", PATH: "/usr/sbin:/usr/bin:/sbin:/bin:/hostile",
  });
});
