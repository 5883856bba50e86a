// GitHub's results service: caches and artifacts.
//
// Law: the one file that talks to it. Every wait ends by the caller's signal; every failure is a ResultsError, which
// no job has to fail for. Source: the twirp services github.actions.results.api.v1.CacheService and .ArtifactService,
// as GitHub's own actions call them; Azure's "Put Blob".

import { createHash } from "node:crypto";

const ARTIFACT_VERSION = 7;

export class ResultsError extends Error {}

export class Results {
  /** `env` is a JavaScript action's environment. Raises ResultsError where the runner gave no service. */
  constructor(env, signal) {
    this.url = env.ACTIONS_RESULTS_URL;
    this.token = env.ACTIONS_RUNTIME_TOKEN;
    this.signal = signal;
    if (!this.url || !this.token) {
      throw new ResultsError("this runner has no results service");
    }
  }

  /** The cached bytes, or null. `version` tells what the bytes depend on besides `key`. */
  async cached(key, version) {
    const found = await this.#call("CacheService/GetCacheEntryDownloadURL", { key, restore_keys: [], version });
    if (!found.ok) {
      return null;
    }
    const answer = await this.#fetch(found.signed_download_url ?? found.signedDownloadUrl);
    return Buffer.from(await answer.arrayBuffer());
  }

  /** False where somebody else has saved that key already. */
  async saveCache(key, version, content) {
    const made = await this.#call("CacheService/CreateCacheEntry", { key, version });
    if (!made.ok) {
      return false;
    }
    await this.#put(made.signed_upload_url ?? made.signedUploadUrl, content);
    const size = String(content.length); // a 64-bit integer is a string in protobuf's JSON
    const done = await this.#call("CacheService/FinalizeCacheEntryUpload", { key, version, size_bytes: size });
    return done.ok === true;
  }

  /** `archive` is a zip file. */
  async saveArtifact(name, archive) {
    const [run, job] = backendIds(this.token);
    const which = { workflow_run_backend_id: run, workflow_job_run_backend_id: job, name };
    const type = { version: ARTIFACT_VERSION, mime_type: "application/zip" };
    const made = await this.#call("ArtifactService/CreateArtifact", { ...which, ...type });
    if (!made.ok) {
      throw new ResultsError(`an artifact named ${name} can't be made`);
    }
    await this.#put(made.signed_upload_url ?? made.signedUploadUrl, archive);
    const hash = `sha256:${createHash("sha256").update(archive).digest("hex")}`;
    const done = await this.#call("ArtifactService/FinalizeArtifact", {
      ...which,
      size: String(archive.length),
      hash,
    });
    if (!done.ok) {
      throw new ResultsError(`the artifact ${name} was not taken`);
    }
  }

  async #call(method, message) {
    const url = new URL(`/twirp/github.actions.results.api.v1.${method}`, this.url);
    const headers = { Authorization: `Bearer ${this.token}`, "Content-Type": "application/json" };
    const answer = await this.#fetch(url, { method: "POST", headers, body: JSON.stringify(message) });
    try {
      return await answer.json();
    } catch (error) {
      throw new ResultsError(`${method} answered no JSON`, { cause: error });
    }
  }

  #put(url, content) {
    const headers = { "x-ms-blob-type": "BlockBlob", "Content-Type": "application/octet-stream" };
    return this.#fetch(url, { method: "PUT", headers, body: content });
  }

  async #fetch(url, options = {}) {
    try {
      const answer = await fetch(url, { ...options, signal: this.signal });
      if (answer.ok) {
        return answer;
      }
      throw new ResultsError(`${new URL(url).host} answered ${answer.status}`);
    } catch (error) {
      throw error instanceof ResultsError ? error : new ResultsError(why(error), { cause: error });
    }
  }
}

function why(error) {
  return error.name === "TimeoutError" ? "the results service is too slow" : (error.cause?.message ?? error.message);
}

/** The run's and the job's id, from the scope "Actions.Results:RUN:JOB" of the token (a JWT: RFC 7519). */
function backendIds(token) {
  try {
    const claims = JSON.parse(Buffer.from(token.split(".")[1], "base64url").toString());
    const scope = claims.scp.split(" ").find((one) => one.startsWith("Actions.Results:"));
    const [, run, job] = scope.split(":");
    return [run, job];
  } catch (error) {
    throw new ResultsError("the runner's token names no job", { cause: error });
  }
}
