// Against a server that keeps what it is given, as GitHub's does.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { Results, ResultsError } from "../lib/results.js";

const TOKEN = `e30.${Buffer.from('{"scp":"Other:1 Actions.Results:run-1:job-2"}').toString("base64url")}.sig`;
const caches = new Map();
const artifacts = [];
const blobs = new Map();
let server;
let url;

const METHODS = {
  "CacheService/GetCacheEntryDownloadURL": ({ key, version }) =>
    caches.has(`${key} ${version}`) ? { ok: true, signed_download_url: `${url}blob/${key}` } : { ok: false },
  "CacheService/CreateCacheEntry": ({ key, version }) =>
    caches.has(`${key} ${version}`) ? { ok: false } : { ok: true, signed_upload_url: `${url}blob/${key}` },
  "CacheService/FinalizeCacheEntryUpload": ({ key, version, size_bytes: size }) => {
    caches.set(`${key} ${version}`, size);
    return { ok: Number(size) === blobs.get(`/blob/${key}`).length, entry_id: "1" };
  },
  "ArtifactService/CreateArtifact": (message) =>
    message.name === "taken" ? { ok: false } : { ok: true, signedUploadUrl: `${url}blob/${message.name}` },
  "ArtifactService/FinalizeArtifact": (message) => {
    artifacts.push(message);
    return { ok: true, artifactId: "1" };
  },
};

before(async () => {
  server = createServer(async (request, response) => {
    const body = Buffer.concat(await Array.fromAsync(request));
    const method = request.url.split("api.v1.")[1];
    if (request.url === "/blob/silent") {
      return; // never answers
    }
    if (method) {
      const right = request.headers.authorization === `Bearer ${TOKEN}`;
      response.writeHead(right ? 200 : 401).end(right ? JSON.stringify(METHODS[method](JSON.parse(body))) : "");
    } else if (request.method === "PUT") {
      blobs.set(request.url, body);
      response.writeHead(request.headers["x-ms-blob-type"] === "BlockBlob" ? 201 : 400).end();
    } else {
      response.end(blobs.get(request.url));
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${server.address().port}/`;
});
after(() => {
  server.closeAllConnections();
  server.close();
});

function results(token = TOKEN, signal = AbortSignal.timeout(5_000)) {
  return new Results({ ACTIONS_RESULTS_URL: url, ACTIONS_RUNTIME_TOKEN: token }, signal);
}

test("a cache is missed, saved once, and found", async () => {
  const content = Buffer.from("wheels");
  assert.equal(await results().cached("key", "v"), null);
  assert.equal(await results().saveCache("key", "v", content), true);
  assert.deepEqual(await results().cached("key", "v"), content);
  assert.equal(await results().saveCache("key", "v", content), false);
});

test("an artifact is named, sized and summed for this job", async () => {
  const archive = Buffer.from("archive");
  await results().saveArtifact("dnsfw-journal", archive);
  assert.deepEqual(blobs.get("/blob/dnsfw-journal"), archive);
  assert.deepEqual(artifacts, [
    {
      workflow_run_backend_id: "run-1", workflow_job_run_backend_id: "job-2", name: "dnsfw-journal", size: "7",
      hash: `sha256:${createHash("sha256").update(archive).digest("hex")}`,
    },
  ]);
});

for (const [title, act, reason] of [
  ["a name that is taken", () => results().saveArtifact("taken", Buffer.alloc(1)), /can't be made/],
  ["a token that is refused", () => results("wrong").cached("key", "v"), /answered 401/],
  ["a token that names no job", () => results("e30.e30.x").saveArtifact("a", Buffer.alloc(1)), /names no job/],
  ["a service that never answers", () => {
    caches.set("silent v", "1");
    return results(TOKEN, AbortSignal.timeout(100)).cached("silent", "v");
  }, /too slow/],
  ["a runner without the service", async () => new Results({}), /no results service/],
]) {
  test(`${title} is a ResultsError`, () =>
    assert.rejects(act, (error) => error instanceof ResultsError && reason.test(error.message)));
}

test("a service that nobody listens at is a ResultsError", async () => {
  const away = new Results({ ACTIONS_RESULTS_URL: "http://127.0.0.1:1/", ACTIONS_RUNTIME_TOKEN: TOKEN });
  await assert.rejects(() => away.cached("key", "v"), ResultsError);
});
