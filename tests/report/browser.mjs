// A browser for the scripts that look at pages: playwright-core and axe-core of this folder, and Chromium. CHROMIUM names
// another browser.

import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

// `unchecked` is a sentence for when it cannot run, which ends the script with exit code 2: what was not checked has not passed.
export function browser(unchecked) {
  const cannotRun = (reason) => {
    console.error(`CANNOT RUN: ${reason}. ${unchecked}`);
    process.exit(2);
  };
  const require = createRequire(import.meta.url);
  let chromium, axe;
  try {
    ({ chromium } = require('playwright-core'));
    axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
  } catch (error) {
    cannotRun(`${error.message.split('\n')[0]}; run \`npm install\` in tests/report`);
  }
  const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
  if (!existsSync(executablePath)) cannotRun(`there is no browser at ${executablePath}; install chromium, or set CHROMIUM`);
  return { chromium, axe, executablePath, cannotRun };
}
