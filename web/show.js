// What both pages show things with. Text from files, drivers and errors is only ever set as text.

export const at = (id) => document.getElementById(id);

const units = [[1, 's'], [1e-3, 'ms'], [1e-6, 'µs']];
export function time(seconds) {
  const [unit, name] = units.find(([size]) => seconds >= size) ?? [1e-9, 'ns'];
  return `${(seconds / unit).toPrecision(3)} ${name}`;
}

// A share in per cent; nothing for none.
export function percent(share) {
  if (share == null) return '';
  if (share < 0.0005) return '< 0.1 %';
  return `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
}

// A line of a table: for each cell its tag, its text and its properties.
export function row(cells) {
  const line = document.createElement('tr');
  line.append(...cells.map(([tag, text, properties = {}]) => {
    const cell = Object.assign(document.createElement(tag), properties);
    cell.textContent = text;
    return cell;
  }));
  return line;
}

// Hands on files that are dropped on a place, or chosen with its input.
export function takeDropped(place, input, take) {
  input.onchange = () => take(input.files);
  for (const [event, isOver] of [['dragover', true], ['dragleave', false], ['drop', false]]) {
    place.addEventListener(event, (dragged) => {
      dragged.preventDefault();
      place.classList.toggle('over', isOver);
      if (event === 'drop') take(dragged.dataTransfer.files);
    });
  }
}
