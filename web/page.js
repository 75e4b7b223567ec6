// The page: asks the worker, and shows what it answers. Text from files, drivers and errors is only ever set as text.

import { at, percent, row, takeDropped, time } from './show.js';

const worker = new Worker('worker.js', { type: 'module' });
const waiting = new Map();
let requests = 0;

function ask(name, request, progress = () => {}) {
  requests += 1;
  const id = requests;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject, progress });
    worker.postMessage({ id, name, request });
  });
}

function endAll(reason) {
  for (const { reject } of waiting.values()) reject(new Error(reason));
  waiting.clear();
}

worker.addEventListener('message', ({ data }) => {
  if (data.ended) return endAll(data.ended);
  const { resolve, reject, progress } = waiting.get(data.id);
  if (data.progress) return progress(...data.progress);
  waiting.delete(data.id);
  return data.error === undefined ? resolve(data.result) : reject(new Error(data.error));
});
worker.addEventListener('error', (event) => endAll(`the worker has failed: ${event.message ?? 'it did not start'}`));

// The browser and the system, as far as the browser says.
async function machine() {
  const data = navigator.userAgentData;
  const more = await data?.getHighEntropyValues?.(['platformVersion', 'architecture']).catch(() => undefined);
  const brand = data?.brands?.findLast(({ brand: name }) => !/not.?a.?brand/i.test(name));
  const of = /(Firefox|Edg|Chrome|Version)\/(\d+)/.exec(navigator.userAgent);
  const name = { Version: 'Safari', Edg: 'Edge' }[of?.[1]] ?? of?.[1] ?? 'browser';
  const browser = brand ? `${brand.brand} ${brand.version}` : `${name} ${of?.[2] ?? ''}`.trim();
  const system = [data?.platform ?? navigator.platform, more?.platformVersion].filter(Boolean).join(' ');
  return {
    os: `${browser} on ${system || 'unknown'}`,
    arch: 'wasm32',
    cpu: more?.architecture || 'unknown',
    cores: navigator.hardwareConcurrency ?? 1,
    memory_bytes: (navigator.deviceMemory ?? 0) * 2 ** 30,
  };
}

const device = () => document.querySelector('input[name=device]:checked').value;

// One thing at a time: the device is one.
const buttons = [at('selftest-run'), at('bench-run'), at('prune-run')];
let busy = true;
let files = {};
function setBusy(now) {
  busy = now;
  for (const button of buttons) button.disabled = now;
  at('prune-run').disabled = now || !files.weights;
}

function say(line, text, isWrong = false) {
  line.textContent = text;
  line.classList.toggle('wrong', isWrong);
}

function offer(place, text, fileName) {
  place.hidden = false;
  const copy = place.querySelector('[data-copy]');
  copy.textContent = 'Copy';
  copy.onclick = async () => {
    await navigator.clipboard.writeText(text.copied);
    copy.textContent = 'Copied';
  };
  place.querySelector('[data-download]').onclick = () => save(new Blob([text.saved], { type: 'application/json' }), fileName);
}

function save(blob, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function run(name, work) {
  setBusy(true);
  at(`${name}-out`).hidden = false;
  try {
    await work(at(`${name}-line`));
  } catch (error) {
    say(at(`${name}-line`), error.message, true);
  }
  const bar = at(`${name}-progress`);
  if (bar) bar.hidden = true;
  setBusy(false);
}

at('selftest-run').onclick = () => run('selftest', async (line) => {
  const bar = at('selftest-progress');
  bar.hidden = false;
  bar.removeAttribute('value');
  at('selftest-save').hidden = true;
  at('selftest-text').hidden = true;
  say(line, 'opening the device');
  const { record, text } = await ask('selftest', { device: device(), machine: await machine() }, (done, all, next) => {
    bar.max = all;
    bar.value = done;
    say(line, `${done} of ${all}: ${next}`);
  });
  const [{ passed, differences, error, seconds }] = record.devices;
  const verdict = error ? `failed: ${error}` : differences.length > 0 ? `DIFFERS in ${differences.length}` : 'ok';
  say(line, `${verdict}: ${passed} of ${record.cases} cases match, ${seconds.toFixed(1)} s`, verdict !== 'ok');
  at('selftest-text').textContent = text;
  at('selftest-text').hidden = false;
  offer(at('selftest-save'), { copied: text, saved: JSON.stringify(record, null, 2) }, 'selftest.json');
});

function median(samples) {
  const sorted = [...samples].sort((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  return (sorted[Math.floor(middle)] + sorted[Math.ceil(middle)]) / 2;
}

at('bench-run').onclick = () => run('bench', async (line) => {
  at('bench-save').hidden = true;
  at('bench-scroll').hidden = true;
  say(line, 'opening the device');
  const date = new Date().toISOString().replace(/\.\d+Z$/, 'Z');
  const request = { device: device(), machine: await machine(), date, quick: at('bench-quick').checked };
  const json = await ask('bench', request, (what) => say(line, `measuring ${what}`));
  const [record] = JSON.parse(json).records;
  const seconds = (of) => median(of.device?.length > 0 ? of.device : of.wall);
  const rows = [];
  let last;
  for (const of of record.cases) {
    if (of.of !== last) rows.push(row([['th', of.of, { colSpan: 4 }]]));
    last = of.of;
    const copy = record.cases.find((other) => other.what === 'copy' && other.of === of.of);
    const share = seconds(copy) / seconds(of);
    rows.push(row([['th', of.what], ['td', time(seconds(of)), { className: 'n' }],
      ['td', (of.bytes / seconds(of) / 1e9).toPrecision(3), { className: 'n' }],
      ['td', percent(of === copy ? null : share), { className: 'n' }]]));
  }
  at('bench-rows').replaceChildren(...rows);
  at('bench-scroll').hidden = false;
  const software = record.device.kind === 'software' ? ' This is a software adapter: the times say nothing about a GPU.' : '';
  say(line, `${record.cases.length} cases on ${record.device.name || 'the device'}.${software}`);
  offer(at('bench-save'), { copied: json, saved: json }, 'bench.json');
});

function choose(list) {
  files = {};
  const wrong = [];
  for (const file of list) {
    const isSafetensors = file.name.endsWith('.safetensors');
    if (file.name.endsWith('config.json')) files.config = file;
    else if (/\.(gguf|dat)$/.test(file.name)) files.norms = file;
    else if (isSafetensors && !files.weights) files.weights = file;
    else if (isSafetensors && !files.norms) files.norms = file;
    else wrong.push(`${file.name}: neither weights, norms nor a config.json`);
  }
  // The larger of two is the weights.
  if (files.norms?.name.endsWith('.safetensors') && files.norms.size > files.weights.size) {
    [files.weights, files.norms] = [files.norms, files.weights];
  }
  const lines = Object.entries(files).filter(([, file]) => file)
    .map(([what, file]) => `${what}: ${file.name}, ${(file.size / 1e6).toFixed(1)} MB`).concat(wrong);
  at('chosen').replaceChildren(...lines.map((text) => Object.assign(document.createElement('li'), { textContent: text })));
  setBusy(busy);
}

takeDropped(at('drop'), at('files'), choose);
at('rule').onchange = () => { at('sparsity').disabled = at('rule').value.includes(':'); };

function rule() {
  const chosen = at('rule').value;
  return chosen.includes(':') ? { pattern: chosen.split(':').map(Number) } : { [chosen]: at('sparsity').valueAsNumber / 100 };
}

at('prune-run').onclick = async () => {
  const { weights, config, norms } = files;
  const name = weights.name.replace(/\.safetensors$/, '-pruned.safetensors');
  let handle;
  // Before the browser asks: a second click meanwhile would prune twice.
  setBusy(true);
  // Has to be asked for at once, while the click counts.
  if (window.showSaveFilePicker) {
    try {
      handle = await window.showSaveFilePicker({ suggestedName: name });
    } catch (error) {
      if (error.name === 'AbortError') return setBusy(false);
    }
  }
  await run('prune', async (line) => {
    const bar = at('prune-progress');
    Object.assign(bar, { hidden: false, max: weights.size, value: 0 });
    at('prune-save').hidden = true;
    at('prune-list').hidden = true;
    say(line, 'opening the device');
    const wanted = { name: weights.name, bytes: weights.size, norms_name: norms?.name, rule: rule() };
    const start = performance.now();
    const { summary, file } = await ask('prune', { device: device(), wanted, weights, config, norms, handle }, (bytes) => {
      bar.value = bytes;
      say(line, `${(bytes / 1e6).toFixed(0)} of ${(weights.size / 1e6).toFixed(0)} MB`);
    });
    const all = (performance.now() - start) / 1000;
    say(line, `${name}: ${summary.tensors_pruned} of ${summary.tensors} tensors pruned, ${all.toFixed(1)} s in all`);
    const list = {
      'Zeros': `${summary.zeros.toLocaleString('en')} of ${summary.weights.toLocaleString('en')} weights (${(100 * summary.zeros / summary.weights).toFixed(2)} %)`,
      'Score': summary.score,
      'SHA-256': summary.sha256,
    };
    if (summary.warnings.length > 0) list['Warnings'] = summary.warnings.join('; ');
    if (summary.device_failure) list['Device'] = `${summary.device_failure}; the CPU went on`;
    at('prune-list').replaceChildren(...Object.entries(list).flatMap(([term, text]) => [
      Object.assign(document.createElement('dt'), { textContent: term }),
      Object.assign(document.createElement('dd'), { textContent: text }),
    ]));
    at('prune-list').hidden = false;
    if (file) {
      URL.revokeObjectURL(at('prune-link').href);
      Object.assign(at('prune-link'), { href: URL.createObjectURL(file), download: name });
      at('prune-save').hidden = false;
    }
  });
};

async function begin() {
  at('browser-name').textContent = (await machine()).os;
  if (!navigator.gpu) {
    say(at('state'), 'This browser offers no WebGPU.', true);
    at('missing').hidden = false;
    return;
  }
  try {
    const info = await ask('describe', { device: 'gpu' });
    at('device-name').textContent = `${info.name || 'not named by the browser'} (${info.kind})`;
    at('device-backend').textContent = [info.backend, info.driver].filter(Boolean).join(', ');
    at('device-list').hidden = false;
    const gpu = document.querySelector('input[value=gpu]');
    gpu.disabled = false;
    gpu.checked = true;
    say(at('state'), 'The GPU computed a few difficult rows as the CPU does.');
  } catch (error) {
    say(at('state'), error.message, true);
    at('missing').hidden = false;
  }
}

await begin();
setBusy(false);
document.body.dataset.ready = 'yes';
