// Looks at report pages in Chromium: phone and desktop width, light and dark, with the keyboard, and with axe-core.
//
//     cd tests/report && npm install
//     node check.mjs PAGE.html... [--screenshots DIRECTORY]
//
// Written for node 18 or later, playwright-core 1.65.1, axe-core 4.14.1 and Debian's chromium 156. CHROMIUM names another
// browser. What cannot run is said, with exit code 2: a page that was not looked at has not passed. Exit code 1: something is
// wrong with a page.

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

import { browser } from './browser.mjs';

const { chromium, axe, executablePath, cannotRun } = browser('No page was checked.');
const words = process.argv.slice(2);
const at = words.indexOf('--screenshots');
const shots = at >= 0 ? words.splice(at, 2)[1] : undefined;
if (words.length === 0) {
  cannotRun('no page was given');
}
if (shots) {
  mkdirSync(shots, { recursive: true });
}

const userData = mkdtempSync(join(tmpdir(), 'report-check-'));
const flags = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const widths = { phone: { width: 390, height: 844 }, desktop: { width: 1280, height: 900 } };
const problems = [];
let context;
try {
  context = await chromium.launchPersistentContext(userData, { executablePath, args: flags, bypassCSP: true });
} catch (error) {
  rmSync(userData, { recursive: true, force: true });
  cannotRun(`the browser does not start: ${error.message.split('\n')[0]}`);
}

for (const file of words) {
  const address = pathToFileURL(resolve(file)).href;
  for (const [device, viewport] of Object.entries(widths)) {
    for (const colorScheme of ['light', 'dark']) {
      const page = await context.newPage();
      const wrong = (what) => problems.push(`${file}, ${device}, ${colorScheme}: ${what}`);
      page.on('request', (request) => {
        if (request.url() !== address) wrong(`loads ${request.url()}`);
      });
      page.on('console', (message) => {
        if (message.type() === 'error') wrong(`console: ${message.text()}`);
      });
      page.on('pageerror', (error) => wrong(`error: ${error.message}`));
      await page.setViewportSize(viewport);
      await page.emulateMedia({ colorScheme });
      await page.goto(address);
      const name = join(shots ?? '', `${basename(file, '.html')}-${device}-${colorScheme}.png`);
      if (shots) await page.screenshot({ path: name, fullPage: true });
      await page.evaluate(() => document.querySelectorAll('details').forEach((element) => { element.open = true; }));

      const seen = await page.evaluate(() => ({
        wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
        paper: getComputedStyle(document.body).backgroundColor,
        headings: document.querySelectorAll('h2').length,
        sentences: document.querySelectorAll('section > .see').length,
        empty: [...document.querySelectorAll('svg[role=img]')].filter((svg) => svg.getBoundingClientRect().height < 50).length,
        unreachable: [...document.querySelectorAll('*')].filter((element) =>
          ['auto', 'scroll'].includes(getComputedStyle(element).overflowX) && element.scrollWidth > element.clientWidth
          && element.tabIndex < 0).length,
      }));
      if (seen.wide > 0) wrong(`the page is ${seen.wide} pixels wider than the screen`);
      const channel = Number(seen.paper.match(/\d+/)[0]);
      if ((colorScheme === 'dark') !== (channel < 128)) wrong(`the paper is ${seen.paper}`);
      if (seen.headings === 0 || seen.headings !== seen.sentences) {
        wrong(`${seen.headings} sections, ${seen.sentences} sentences`);
      }
      if (seen.empty > 0) wrong(`${seen.empty} pictures have no height`);
      if (seen.unreachable > 0) wrong(`${seen.unreachable} scrolling parts cannot be reached with the keyboard`);

      // Tab goes through everything that can be focused, in its order, and what has the focus is marked.
      const focusable = await page.evaluate(() => document.querySelectorAll('[tabindex="0"], summary, a[href], button').length);
      await page.evaluate(() => { document.activeElement?.blur(); window.scrollTo(0, 0); });
      let reached = 0;
      for (let step = 0; step < focusable; step += 1) {
        await page.keyboard.press('Tab');
        const marked = await page.evaluate(() => {
          const element = document.activeElement;
          return element !== document.body && getComputedStyle(element).outlineStyle !== 'none';
        });
        reached += marked ? 1 : 0;
      }
      if (reached !== focusable) wrong(`${reached} of ${focusable} focusable parts were reached with Tab and marked`);

      await page.evaluate(axe);
      const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
      for (const violation of found.violations) {
        const where = violation.nodes.slice(0, 3).map((node) => node.target.join(' ')).join('; ');
        const text = `axe ${violation.impact}: ${violation.id} (${violation.help}), ${violation.nodes.length} times: ${where}`;
        if (['serious', 'critical'].includes(violation.impact)) wrong(text);
        else console.log(`note: ${file}, ${device}, ${colorScheme}: ${text}`);
      }
      console.log(`looked at ${file}, ${device}, ${colorScheme}: ${seen.headings} sections, ${focusable} reached with Tab, `
        + `${found.passes.length} rules of axe passed`);
      await page.close();
    }
  }
}
await context.close();
rmSync(userData, { recursive: true, force: true });
for (const problem of problems) console.error(`WRONG: ${problem}`);
process.exit(problems.length > 0 ? 1 : 0);
