'use strict';
// The table of all classes: what is in it comes from the page's JSON and is only ever set as text.
const runs = JSON.parse(document.getElementById('data').textContent);
const PART = 200; // rows that are drawn at once; a phone does not like thousands

function compare(a, b, ascending) {
  if (a === null || b === null) return (a === null) - (b === null); // what is not known comes last, either way
  const order = typeof a === 'string' ? a.localeCompare(b, 'en', { numeric: true }) : a - b;
  return ascending ? order : -order;
}

function cell(value, column) {
  const td = document.createElement('td');
  td.className = column.kind === 'number' ? '' : 'text';
  if (column.kind === 'group') td.className = 'group ' + value;
  if (column.kind === 'text') td.dir = 'auto'; // names may be written from right to left
  td.textContent = value === null ? '\u2013' : typeof value === 'number' ? value.toFixed(column.digits) : value;
  return td;
}

function classTable(root, run) {
  const body = root.querySelector('tbody'), more = root.querySelector('.more'), count = root.querySelector('.count');
  const text = root.querySelector('input'), shot = root.querySelector('select');
  const state = { column: 0, ascending: null, limit: PART };

  function rows() {
    const wanted = text.value.trim().toLowerCase();
    const found = run.rows.filter((row) => (!shot.value || row[1] === shot.value)
      && (!wanted || row[0].toLowerCase().includes(wanted)
        || (run.columns[state.mistake] && (row[state.mistake] || '').toLowerCase().includes(wanted))));
    if (state.ascending !== null) found.sort((a, b) => compare(a[state.column], b[state.column], state.ascending));
    return found;
  }

  function draw() {
    const found = rows();
    body.replaceChildren(...found.slice(0, state.limit).map((row) => {
      const tr = document.createElement('tr');
      tr.append(...row.map((value, i) => cell(value, run.columns[i])));
      return tr;
    }));
    count.textContent = found.length + ' of ' + run.rows.length + ' classes';
    more.hidden = found.length <= state.limit;
    more.textContent = 'Show all ' + found.length;
  }

  const heads = run.columns.map((column, i) => {
    const th = document.createElement('th'), button = document.createElement('button');
    th.scope = 'col';
    th.className = column.kind;
    button.type = 'button';
    button.textContent = column.label;
    button.onclick = () => {
      state.ascending = state.column === i && state.ascending !== null ? !state.ascending : true;
      state.column = i;
      heads.forEach((h) => h.removeAttribute('aria-sort'));
      th.setAttribute('aria-sort', state.ascending ? 'ascending' : 'descending');
      draw();
    };
    th.append(button);
    return th;
  });
  state.mistake = run.columns.findIndex((column) => column.key === 'mistake');
  root.querySelector('thead tr').append(...heads);
  text.oninput = shot.onchange = draw;
  more.onclick = () => { state.limit = Infinity; draw(); };
  draw();
}

function tabs() {
  const buttons = [...document.querySelectorAll('.tabs button')];
  const show = (number) => {
    document.querySelectorAll('section.run').forEach((section, i) => { section.hidden = i !== number; });
    buttons.forEach((button, i) => button.setAttribute('aria-pressed', String(i === number)));
  };
  buttons.forEach((button, i) => { button.onclick = () => show(i); });
  if (buttons.length) show(0);
}

// For the tests: opened with #selftest the page sorts and filters its first table and writes down what it then shows.
function selftest() {
  const root = document.querySelector('.classtable');
  const text = root.querySelector('input'), shot = root.querySelector('select');
  const shown = () => [...root.querySelectorAll('tbody tr')].map((row) => row.cells[0].textContent);
  const result = { start: shown(), sorted: {}, text: {}, shots: {} };
  root.querySelector('.more').click();
  runs[0].columns.forEach((column, i) => {
    const button = root.querySelectorAll('thead button')[i];
    button.click();
    const ascending = shown();
    button.click();
    result.sorted[column.key] = { ascending, descending: shown() };
  });
  const fill = (element, value, event) => { element.value = value; element.dispatchEvent(new Event(event)); };
  for (const [name] of runs[0].rows.slice(0, 5)) {
    fill(text, name.slice(0, 6), 'input');
    result.text[name.slice(0, 6)] = shown();
  }
  fill(text, '', 'input');
  for (const name of ['many', 'medium', 'few']) {
    fill(shot, name, 'change');
    result.shots[name] = shown();
  }
  fill(shot, '', 'change');
  result.requests = performance.getEntriesByType('resource').map((e) => e.name).filter((n) => !n.startsWith('data:'));
  result.firstTable = Number(document.documentElement.dataset.firstTable);
  document.documentElement.dataset.selftest = JSON.stringify(result);
}

document.querySelectorAll('.classtable').forEach((root, i) => {
  classTable(root, runs[i]);
  if (i === 0) document.documentElement.dataset.firstTable = performance.now().toFixed(1);
});
tabs();
if (location.hash === '#selftest') selftest();
