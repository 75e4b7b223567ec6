// Runs the library beside the page, so that the page stays alive. One request at a time: {id, name, arguments}; answers are
// {id, progress}, {id, result} and {id, error}.

import init, { bench, describe, prune, selftest } from './swiftprune_web.js';

const ready = init();

// An output file of this page's own, on the disk: for browsers in which a page cannot write where the user says.
async function ownFile(name) {
  const root = await navigator.storage.getDirectory();
  // Whatever an earlier visit has left.
  for await (const left of root.keys()) await root.removeEntry(left).catch(() => {});
  const handle = await root.getFileHandle(name, { create: true });
  const file = await handle.createSyncAccessHandle();
  let at = 0;
  return {
    async write(bytes) {
      for (let done = 0; done < bytes.length;) {
        const written = file.write(bytes.subarray(done), { at });
        if (!(written > 0)) throw new Error('there is no room left for it');
        done += written;
        at += written;
      }
    },
    async finish() {
      file.flush();
      file.close();
      return handle.getFile();
    },
    async abandon() {
      file.close();
      await root.removeEntry(name).catch(() => {});
    },
  };
}

// Where the user said. The browser shows nothing there before it is closed.
async function usersFile(handle) {
  const stream = await handle.createWritable();
  return {
    write: (bytes) => stream.write(bytes),
    finish: () => stream.close(),
    abandon: () => stream.abort(),
  };
}

// In memory, in parts that the browser may put on the disk: where there is no other way.
function blob() {
  const parts = [];
  return {
    async write(bytes) { parts.push(new Blob([bytes])); },
    async finish() { return new Blob(parts, { type: 'application/octet-stream' }); },
    async abandon() { parts.length = 0; },
  };
}

async function pruneFile({ device, wanted, weights, config, norms, handle }, progress) {
  const read = async (offset, length) => new Uint8Array(await weights.slice(offset, offset + length).arrayBuffer());
  const bytesOf = async (file) => (file ? new Uint8Array(await file.arrayBuffer()) : undefined);
  const output = handle ? await usersFile(handle) : await ownFile('pruned.safetensors').catch(blob);
  try {
    const json = await prune(device, JSON.stringify(wanted), await bytesOf(config), await bytesOf(norms), read, output.write, progress);
    return { summary: JSON.parse(json), file: await output.finish() };
  } catch (error) {
    await output.abandon();
    throw error;
  }
}

// What the browser tells of the adapter, which it is asked for in the same way as the library does.
async function gpuName(chosen) {
  if (chosen !== 'gpu') return '';
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: 'high-performance' });
  if (!adapter) throw new Error('The browser knows WebGPU, but offers no GPU through it.');
  const { vendor, architecture, device, description } = adapter.info;
  return description || [vendor, architecture, device].filter(Boolean).join(' ');
}

// The example model, which some cases of the self-test prune.
async function example() {
  const response = await fetch('tiny-llama.safetensors');
  if (!response.ok) throw new Error(`tiny-llama.safetensors: ${response.status} ${response.statusText}`);
  return new Uint8Array(await response.arrayBuffer());
}

const requests = {
  describe: async ({ device }) => JSON.parse(await describe(device, await gpuName(device))),
  selftest: async ({ device, machine }, progress) =>
    JSON.parse(await selftest(device, await gpuName(device), JSON.stringify(machine), await example(), progress)),
  bench: async ({ device, machine, date, quick }, progress) =>
    bench(device, await gpuName(device), JSON.stringify(machine), date, quick, progress),
  prune: pruneFile,
};

// A panic ends the module in the middle of a request, which then never answers.
function ended(reason) {
  postMessage({ ended: `the module has ended, by an error of this program: ${reason}. Load the page again` });
}
addEventListener('error', (event) => ended(event.message));
addEventListener('unhandledrejection', (event) => ended(event.reason?.message ?? String(event.reason)));

addEventListener('message', async ({ data: { id, name, request } }) => {
  const progress = (...told) => postMessage({ id, progress: told });
  try {
    await ready;
    postMessage({ id, result: await requests[name](request, progress) });
  } catch (error) {
    postMessage({ id, error: error?.message ?? String(error) });
  }
});
