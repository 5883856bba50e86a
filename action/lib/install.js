// dnsfw on this machine, for root to run.
//
// Law: what is there already is not made again. A cache saves time and is trusted with nothing: scripts/install.sh
// takes from it only what the locks and the signed lists of packages name by hash.

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { asRoot, CommandError, run } from "./place.js";
import { Results, ResultsError } from "./results.js";

const INSTALLED_WITHIN = 300; // seconds; a mirror of packages may be slow
const PACKED_WITHIN = 60;
const CACHED_WITHIN = 60_000; // milliseconds

/** Raises CommandError; then nothing of it is left. */
export async function install(runner, place) {
  if (existsSync(place.program)) {
    return;
  }
  const folder = mkdtempSync(join(tmpdir(), "dnsfw-cache-"));
  try {
    const cache = join(folder, "cache");
    const found = await quietly(runner, () => restore(runner, place, folder));
    const script = join(place.source, "scripts/install.sh");
    const argv = ["bash", script, place.installed, ...(found ? [cache] : [])];
    const watch = (text) => runner.write(text); // names of what a cache holds, among others
    await runner.quoting(() => asRoot(argv, { seconds: INSTALLED_WITHIN, watch }));
    if (!found) {
      await quietly(runner, () => save(runner, place, folder));
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function cacheKey(place) {
  return `dnsfw-${process.platform}-${process.arch}-${place.key}`;
}

async function restore(runner, place, folder) {
  const found = await new Results(runner.env, AbortSignal.timeout(CACHED_WITHIN)).cached(cacheKey(place), place.key);
  if (found) {
    writeFileSync(join(folder, "cache.tar"), found);
    await run(["tar", "-x", "-C", folder, "-f", join(folder, "cache.tar"), "cache"], { seconds: PACKED_WITHIN });
  }
  return Boolean(found);
}

async function save(runner, place, folder) {
  const results = new Results(runner.env, AbortSignal.timeout(CACHED_WITHIN)); // before work that would be for nothing
  const script = join(place.source, "scripts/install.sh");
  await run(["bash", script, "--fetch", place.installed, join(folder, "cache")], { seconds: PACKED_WITHIN });
  await run(["tar", "-c", "-C", folder, "-f", join(folder, "cache.tar"), "cache"], { seconds: PACKED_WITHIN });
  await results.saveCache(cacheKey(place), place.key, readFileSync(join(folder, "cache.tar")));
}

/** A cache that fails costs time, not the job. */
async function quietly(runner, act) {
  try {
    return await act();
  } catch (error) {
    if (error instanceof ResultsError || error instanceof CommandError) {
      runner.say(`dnsfw: no cache (${error.message})`);
      return false;
    }
    throw error;
  }
}
