// Drives the page of web/dist in Chromium on its software adapter: self-test, benchmark, pruning; phone and desktop width, light
// and dark.
//
//     cd tests/report && npm install && cd ../..
//     node web/check.mjs --program target/debug/swiftprune-wgpu [--screenshots DIRECTORY] [--only device,selftest,bench,prune,records]
//
// Written for node 20 or later, playwright-core 1.65.1, axe-core 4.14.1 (those of tests/report) and Debian's chromium 156.
// CHROMIUM names another browser. What cannot run is said, with exit code 2: what was not checked has not passed. Exit code 1:
// something is wrong.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

import { browser } from '../tests/report/browser.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const dist = join(root, 'web', 'dist');
const { chromium, axe, executablePath, cannotRun } = browser('The page was not checked.');
if (!existsSync(join(dist, 'index.html'))) cannotRun('web/dist is not there; run web/build');
const words = process.argv.slice(2);
const option = (name) => {
  const at = words.indexOf(name);
  return at >= 0 ? words[at + 1] : undefined;
};
const program = option('--program') ?? cannotRun('no --program to compare with');
const shots = option('--screenshots');
if (shots) mkdirSync(shots, { recursive: true });
const steps = (option('--only') ?? 'device,selftest,bench,prune,records').split(',');

const scratch = mkdtempSync(join(tmpdir(), 'web-check-'));
const problems = [];
const wrong = (what) => problems.push(what);
const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

// As strict as the page says itself, and for the worker too.
const policy = /http-equiv="Content-Security-Policy" content="([^"]*)"/.exec(readFileSync(join(dist, 'index.html'), 'utf8'))[1];
const types = { '.html': 'text/html', '.css': 'text/css', '.json': 'application/json', '.js': 'text/javascript', '.wasm': 'application/wasm', '.safetensors': 'application/octet-stream' };
const server = createServer((request, response) => {
  const path = normalize(new URL(request.url, 'http://127.0.0.1').pathname);
  const file = join(dist, path === '/' ? 'index.html' : path);
  if (!existsSync(file) || !statSync(file).isFile()) return response.writeHead(404).end();
  response.writeHead(200, { 'Content-Type': types[extname(file)], 'Content-Security-Policy': policy });
  return createReadStream(file).pipe(response);
});
await new Promise((done) => { server.listen(0, '127.0.0.1', done); });
const origin = `http://127.0.0.1:${server.address().port}`;

const gpu = ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--enable-features=Vulkan,WebGPU', '--use-vulkan=swiftshader'];
const quiet = ['--headless=new', '--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'];

async function open(flags, look) {
  const userData = mkdtempSync(join(scratch, 'profile-'));
  let context;
  try {
    context = await chromium.launchPersistentContext(userData, { executablePath, args: [...quiet, ...flags], acceptDownloads: true });
  } catch (error) {
    rmSync(scratch, { recursive: true, force: true });
    cannotRun(`the browser does not start: ${error.message.split('\n')[0]}`);
  }
  const page = await context.newPage();
  page.setDefaultTimeout(30 * 60_000);
  page.on('request', (request) => {
    const url = request.url();
    if (!url.startsWith(`${origin}/`) && !url.startsWith(`blob:${origin}`)) wrong(`the page loads ${url}`);
  });
  page.on('console', (message) => {
    if (message.type() === 'error' && !message.location().url.endsWith('favicon.ico')) wrong(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => wrong(`error: ${error.message}`));
  await page.goto(origin);
  await page.waitForSelector('body[data-ready]');
  await look(page);
  await context.close();
}

const text = (page, id) => page.locator(`#${id}`).textContent();

// Until the button can be pressed again: what the line says then.
async function finished(page, name) {
  await page.locator(`#${name}-run`).click();
  await page.waitForSelector(`#${name}-run:not(:disabled)`);
  const line = await text(page, `${name}-line`);
  console.log(`${name}: ${line}`);
  return line;
}

async function downloaded(page, place) {
  const [download] = await Promise.all([page.waitForEvent('download'), page.locator(place).click()]);
  return readFileSync(await download.path());
}

async function look(page, name) {
  for (const [width, viewport] of Object.entries({ phone: { width: 390, height: 844 }, desktop: { width: 1280, height: 900 } })) {
    for (const colorScheme of ['light', 'dark']) {
      await page.setViewportSize(viewport);
      await page.emulateMedia({ colorScheme });
      const which = `${name}, ${width}, ${colorScheme}`;
      if (shots) await page.screenshot({ path: join(shots, `${name}-${width}-${colorScheme}.png`), fullPage: true });
      const seen = await page.evaluate(() => ({
        wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
        paper: getComputedStyle(document.body).backgroundColor,
      }));
      if (seen.wide > 0) wrong(`${which}: the page is ${seen.wide} pixels wider than the screen`);
      if ((colorScheme === 'dark') !== (Number(seen.paper.match(/\d+/)[0]) < 128)) wrong(`${which}: the paper is ${seen.paper}`);
      await page.evaluate(axe);
      const { violations, passes } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
      for (const { impact, id, help, nodes } of violations) {
        const what = `${which}: axe ${impact}: ${id} (${help}): ${nodes.slice(0, 3).map((node) => node.target.join(' ')).join('; ')}`;
        if (['serious', 'critical'].includes(impact)) wrong(what);
        else console.log(`note: ${what}`);
      }
      console.log(`looked at ${which}: ${passes.length} rules of axe passed`);
    }
  }
}

await open(gpu, async (page) => {
  const state = await text(page, 'state');
  console.log(`device: ${state} ${await text(page, 'device-name')}, ${await text(page, 'device-backend')}; ${await text(page, 'browser-name')}`);
  if (!await page.locator('input[value=gpu]').isChecked()) return wrong(`no GPU: ${state}`);

  if (steps.includes('selftest')) {
    await finished(page, 'selftest');
    const record = JSON.parse(await downloaded(page, '#selftest-save [data-download]'));
    const [{ device, passed, differences, error }] = record.devices;
    if (error) wrong(`selftest: ${error}`);
    for (const { case: name, got, expected } of differences) wrong(`selftest: ${name}: got ${got}, expected ${expected}`);
    if (passed !== record.cases || record.cases < 250) wrong(`selftest: ${passed} of ${record.cases} cases match`);
    if (device.backend !== 'webgpu') wrong(`selftest ran on ${device.backend}`);
  }

  if (steps.includes('bench')) {
    await finished(page, 'bench');
    const file = join(scratch, 'bench.json');
    writeFileSync(file, await downloaded(page, '#bench-save [data-download]'));
    const { device, cases } = JSON.parse(readFileSync(file)).records[0];
    if (device.backend !== 'webgpu' || cases.length < 9) wrong(`bench: ${cases.length} cases on ${device.backend}`);
    // The command line reads the record, and finds every case of it in itself.
    const compared = execFileSync(program, ['bench', '--compare', file, file], { encoding: 'utf8' });
    if (compared.split('\n').filter((line) => line.includes('1.00 x')).length !== cases.length) wrong(`bench --compare: ${compared}`);
  }

  if (steps.includes('prune')) {
    const model = join(root, 'examples', 'tiny-llama');
    const norms = join(scratch, 'norms.safetensors');
    execFileSync(program, ['calibrate', model, '--device', 'cpu', '-o', norms], { stdio: 'ignore' });
    const both = [join(model, 'model.safetensors'), join(model, 'config.json')];
    const runs = [
      ['weights alone', both, 'ewma', '50', ['--calibration', 'none']],
      ['with norms', [...both, norms], '2:4', undefined, ['--norms', norms, '--pattern', '2:4']],
      ['where the user says', [...both, norms], 'exact', '30', ['--norms', norms, '--selection', 'exact', '--sparsity', '0.3']],
    ];
    for (const [what, files, rule, sparsity, flags] of runs) {
      const out = join(scratch, 'pruned');
      rmSync(out, { recursive: true, force: true });
      execFileSync(program, ['prune', model, '--device', 'cpu', '-o', out, ...flags], { stdio: 'ignore' });
      const expected = sha256(readFileSync(join(out, 'model.safetensors')));
      // No script can answer the browser's own window; a file of the page's own takes the place of the user's.
      const toUsersFile = what === 'where the user says';
      await page.evaluate((toUsersFile) => {
        window.showSaveFilePicker = toUsersFile
          ? async () => (await navigator.storage.getDirectory()).getFileHandle('chosen', { create: true })
          : undefined;
      }, toUsersFile);
      await page.locator('#files').setInputFiles(files);
      await page.locator('#rule').selectOption(rule);
      if (sparsity) await page.locator('#sparsity').fill(sparsity);
      await finished(page, 'prune');
      const got = toUsersFile
        ? await page.evaluate(async () => {
          const handle = await (await navigator.storage.getDirectory()).getFileHandle('chosen');
          const sum = await crypto.subtle.digest('SHA-256', await (await handle.getFile()).arrayBuffer());
          return [...new Uint8Array(sum)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
        })
        : sha256(await downloaded(page, '#prune-link'));
      const shown = await text(page, 'prune-list');
      if (got !== expected) wrong(`prune, ${what}: ${got}, and the command line has ${expected}`);
      else if (!shown.includes(expected)) wrong(`prune, ${what}: the page shows another SHA-256: ${shown}`);
      else console.log(`prune, ${what}: ${expected}, as with --device cpu`);
    }
    // What is no checkpoint is refused, and the page goes on.
    const broken = join(scratch, 'broken.safetensors');
    writeFileSync(broken, readFileSync(both[0]).subarray(0, 5000));
    await page.locator('#files').setInputFiles([broken]);
    const line = await finished(page, 'prune');
    if (!line.includes('broken.safetensors')) wrong(`prune, a file cut short: ${line}`);
  }
  await look(page, 'page');
});

// Records side by side, without a GPU: the ratios are those of `bench --compare`.
if (steps.includes('records')) {
  await open([], async (page) => {
    await page.goto(`${origin}/records.html`);
    await page.waitForSelector('body[data-ready]');
    const names = readdirSync(join(root, 'benches', 'results')).filter((name) => name.endsWith('.json'));
    const own = names.flatMap((name) => JSON.parse(readFileSync(join(root, 'benches', 'results', name))).records);
    if (await page.locator('input[name=chosen]').count() !== own.length) wrong('records: not all records are shown');
    // The first again, as if of another device: each case as long again by another part.
    const first = structuredClone(own[0]);
    first.device = { ...first.device, name: 'a device </script><b>', backend: 'vulkan', kind: 'software' };
    first.cases.forEach((of, index) => { of.wall = of.wall.map((seconds, sample) => seconds * (0.5 + ((index + sample) % 7) / 4)); });
    const [one, other, broken] = ['one', 'other', 'broken'].map((name) => join(scratch, `${name}.json`));
    writeFileSync(one, JSON.stringify({ bench_schema_version: 1, records: [own[0]] }));
    writeFileSync(other, JSON.stringify({ bench_schema_version: 1, records: [first] }));
    writeFileSync(broken, '{"records": 3}');
    await page.locator('#files').setInputFiles([other, broken]);
    await page.waitForFunction(() => document.querySelector('#state').classList.contains('wrong'));
    const state = await text(page, 'state');
    if (!state.startsWith(`${own.length + 1} records. broken.json: it contains no bench records`)) wrong(`records: ${state}`);
    const compared = execFileSync(program, ['bench', '--compare', one, other], { encoding: 'utf8' });
    const expected = [...compared.matchAll(/(\d+\.\d\d) x +(\d+\.\d\d to \d+\.\d\d)/g)].map(([, speed, bounds]) => `${speed} x (${bounds})`);
    const last = await page.locator('#cases-rows tr td:last-child').allInnerTexts();
    const shown = last.map((cell) => cell.split('\n')[1]).filter(Boolean);
    if (expected.length !== first.cases.length || JSON.stringify(shown) !== JSON.stringify(expected)) {
      wrong(`records: ${JSON.stringify(shown)}, and bench --compare has ${JSON.stringify(expected)}`);
    } else console.log(`records: ${shown.length} ratios, as bench --compare has them`);
    // Compared with the new one, it is the old one that is faster or slower.
    await page.locator('input[name=chosen]').last().check();
    if (!(await page.locator('#cases-head th').nth(1).innerText()).startsWith('a device')) wrong('records: the chosen one is not first');
    await page.locator('input[name=chosen]').first().check();
    await look(page, 'records');
  });
}

// Without WebGPU, the page says what to do, and the CPU still prunes.
await open(['--disable-features=WebGPU', '--disable-gpu', '--disable-blink-features=WebGPU'], async (page) => {
  console.log(`without: ${await text(page, 'state')}`);
  if (!await page.locator('#missing').isVisible()) wrong('without WebGPU, nothing says what to do');
  if (!await page.locator('input[value=cpu]').isChecked()) wrong('without WebGPU, the CPU is not chosen');
  await look(page, 'without');
});

server.close();
rmSync(scratch, { recursive: true, force: true });
for (const problem of problems) console.error(`WRONG: ${problem}`);
if (problems.length === 0) console.log('nothing is wrong with the page');
process.exit(problems.length > 0 ? 1 : 0);
