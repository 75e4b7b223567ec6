// Records of benchmarks side by side. The library reads and compares them, as `bench --compare` does.

import init, { compare_records, read_records } from './swiftprune_web.js';
import { at, percent, row, takeDropped, time } from './show.js';

// As `bench --compare`: no file of records is larger.
const mostBytes = 64 * 2 ** 20;
// Each with its record, its cases' medians and shares, and where it is from.
const records = [];
let chosen = 0;

function add(bytes, from) {
  for (const read of JSON.parse(read_records(bytes))) records.push({ ...read, from });
}

const name = ({ record: { device } }) => `${device.name} (${device.backend})`;
const warnings = ({ record: { debug, device } }) => [
  device.kind === 'software' ? 'A software adapter: these times say nothing about a GPU.' : '',
  debug ? 'Not a release build: these times say nothing about a release.' : '',
].filter(Boolean);
const speedOf = ([low, estimate, high]) => `${estimate.toFixed(2)} x (${low.toFixed(2)} to ${high.toFixed(2)})`;

// How many times as fast each case of a record is as the chosen record's.
function speeds(of) {
  const pairs = JSON.parse(compare_records(JSON.stringify(records[chosen].record), JSON.stringify(of.record)));
  const found = new Map(pairs.map(({ what, of: matrix, speed }) => [JSON.stringify([what, matrix]), speed]));
  return (measured) => found.get(JSON.stringify([measured.what, measured.of]));
}

function entry(each, number) {
  const { record: { version, date, machine, device, left_out: leftOut }, from } = each;
  const label = document.createElement('label');
  const radio = Object.assign(document.createElement('input'), { type: 'radio', name: 'chosen', value: number, checked: number === chosen });
  radio.onchange = () => { chosen = number; compare(); };
  const lines = document.createElement('span');
  const line = (text, className) => lines.append(Object.assign(document.createElement('span'), { textContent: text, className }));
  line(name(each), 'name');
  line([`${machine.cores} cores of ${machine.cpu}, ${machine.os}`, device.driver].filter(Boolean).join('; '), 'soft');
  line(`swiftprune-wgpu ${version}, ${date}; ${from}`, 'soft');
  for (const warning of warnings(each)) line(warning, 'wrong');
  if (leftOut.length > 0) line(`Left out: ${leftOut.join('; ')}`, 'soft');
  label.append(radio, lines);
  return label;
}

function wholeRuns(asFast) {
  const lines = records.flatMap((each, number) => each.record.cases
    .map((measured, index) => ({ measured, said: each.cases[index] }))
    .filter(({ measured }) => measured.what === 'whole run')
    .map(({ measured, said }) => {
      const part = each.record.cases.findIndex(({ what, of }) => of === measured.of && what === 'prune and compensate');
      const speed = asFast[number](measured);
      return [measured.of, row([['th', name(each)], ['td', time(said.median), { className: 'n' }],
        ['td', number === chosen || !speed ? '' : speedOf(speed), { className: 'n' }],
        ['td', percent(said.of_product), { className: 'n' }],
        ['td', percent(each.cases[part]?.of_copy), { className: 'n' }]])];
    }));
  const models = [...new Set(lines.map(([of]) => of))];
  at('whole-rows').replaceChildren(...models.flatMap((model) => [row([['th', model, { colSpan: 5 }]]),
    ...lines.filter(([of]) => of === model).map(([, line]) => line)]));
  at('whole').hidden = lines.length === 0;
}

function allCases(asFast) {
  // The chosen one first; the names of matrices and cases in the order in which they come.
  const order = [chosen, ...[...records.keys()].filter((number) => number !== chosen)];
  at('cases-head').replaceChildren(row([['th', 'Case'], ...order.map((number) => ['th', name(records[number]), { className: 'n' }])]));
  const groups = new Map();
  for (const number of order) {
    records[number].record.cases.forEach((measured, index) => {
      const cases = groups.get(measured.of) ?? new Map();
      const cells = cases.get(measured.what) ?? new Map();
      const speed = number === chosen ? undefined : asFast[number](measured);
      cells.set(number, [time(records[number].cases[index].median), speed ? speedOf(speed) : ''].filter(Boolean).join('\n'));
      groups.set(measured.of, cases.set(measured.what, cells));
    });
  }
  at('cases-rows').replaceChildren(...[...groups].flatMap(([of, cases]) => [row([['th', of, { colSpan: order.length + 1 }]]),
    ...[...cases].map(([what, cells]) => row([['th', what], ...order.map((number) => ['td', cells.get(number) ?? '', { className: 'n' }])]))]));
  at('cases').hidden = records.length === 0;
}

function compare() {
  const asFast = records.map(speeds);
  wholeRuns(asFast);
  allCases(asFast);
}

function show(problems) {
  at('records').replaceChildren(at('records').querySelector('legend'), ...records.map(entry));
  at('state').textContent = [`${records.length} record${records.length === 1 ? '' : 's'}.`, ...problems].join(' ');
  at('state').classList.toggle('wrong', problems.length > 0);
  if (records.length > 0) compare();
}

// What `take` throws is said, and the others go on.
async function each(items, take) {
  const problems = [];
  for (const item of items) {
    try {
      await take(item);
    } catch (error) {
      problems.push(`${item.name ?? item}: ${error.message}.`);
    }
  }
  show(problems);
}

takeDropped(at('drop'), at('files'), (files) => each(files, async (file) => {
  if (file.size > mostBytes) throw new Error('it is too large for a file of bench records');
  add(new Uint8Array(await file.arrayBuffer()), file.name);
}));

await init();
const load = async (path) => {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
  return response;
};
const names = await load('records/index.json').then((response) => response.json()).catch(() => []);
await each(names, async (file) => add(new Uint8Array(await (await load(`records/${file}`)).arrayBuffer()), file));
document.body.dataset.ready = '';
