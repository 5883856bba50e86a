import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

import { zip } from "../lib/zip.js";

const directory = mkdtempSync(join(tmpdir(), "dnsfw-action-"));
after(() => rmSync(directory, { recursive: true }));

// Another program reads it: Python's zipfile checks the sums and both headers.
const READ = "import sys, zipfile as z; f = z.ZipFile(sys.argv[1]); (i,) = f.infolist(); f.testzip(); " +
  "sys.stdout.buffer.write(i.filename.encode() + b'\\0' + f.read(i))";

for (const [title, name, content] of [
  ["text", "journal.jsonl", Buffer.from('{"v":1}\n'.repeat(10_000))],
  ["nothing", "empty", Buffer.alloc(0)],
  ["a name beyond ASCII", "Prüfung.jsonl", Buffer.from([0, 255, 10, 13])],
]) {
  test(`${title} comes back from the archive`, () => {
    const path = join(directory, "archive.zip");
    writeFileSync(path, zip(name, content));
    const read = execFileSync("python3", ["-c", READ, path]);
    assert.deepEqual(read, Buffer.concat([Buffer.from(`${name}\0`), content]));
  });
}
