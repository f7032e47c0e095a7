// Calls GitHub's own client as its actions do: `saveCache` and `restoreCache` for folders, and the
// calls that these are made of for single files, since only these let the version be chosen.
import assert from "node:assert/strict";
import { statSync } from "node:fs";

const lib = new URL("./node_modules/@actions/cache/lib/", import.meta.url);
const { restoreCache, saveCache } = await import(new URL("cache.js", lib));
const http = await import(new URL("internal/cacheHttpClient.js", lib));
const { internalCacheTwirpClient } = await import(new URL("internal/shared/cacheTwirpClient.js", lib));
const azure = { useAzureSdk: true };

const commands = {
  async saveFolder(key, folder) {
    assert.notEqual(await saveCache([folder], key), -1);
  },
  async restoreFolder(key, folder, ...restoreKeys) {
    return await restoreCache([folder], key, restoreKeys);
  },
  async saveFile(key, version, file) {
    const sizeBytes = `${statSync(file).size}`;
    const service = internalCacheTwirpClient();
    const reserved = await service.CreateCacheEntry({ key, version });
    assert.ok(reserved.ok, reserved.message);
    await http.saveCache(-1, file, reserved.signedUploadUrl, { ...azure, archiveSizeBytes: sizeBytes });
    assert.ok((await service.FinalizeCacheEntryUpload({ key, version, sizeBytes })).ok);
  },
  async restoreFile(key, version, file, ...restoreKeys) {
    const found = await internalCacheTwirpClient().GetCacheEntryDownloadURL({ key, restoreKeys, version });
    if (!found.ok) return undefined;
    await http.downloadCache(found.signedDownloadUrl, file, azure);
    return found.matchedKey;
  },
};

const [command, ...values] = process.argv.slice(2);
const answer = await commands[command](...values);
process.stdout.write(`\nanswer: ${JSON.stringify(answer ?? null)}\n`);
