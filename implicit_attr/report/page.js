// Values under the pointer, enlarged figures, sorted tables, tables as CSV.
// All of it is added here: without a script the page has no dead button.
'use strict';

const make = (tag, name, text = '', more = {}) =>
  Object.assign(document.createElement(tag), {className: name, textContent: text}, more);
const button = (text, title, act) =>
  make('button', 'tool', text, {type: 'button', title, ariaLabel: title, onclick: act});

const tip = make('div', 'tip'), ring = make('div', 'ring');

function watch(box, img) {
  const points = JSON.parse(img.dataset.values ?? '[]')
    .flatMap(set => set.points.map(point => [set, ...point]));
  const show = event => {
    const {x, y, width, height} = img.getBoundingClientRect();
    let best, least = 32 ** 2;
    for (const point of points) {
      const [, left, top] = point;
      const far = (event.clientX - x - left * width) ** 2
        + (event.clientY - y - top * height) ** 2;
      if (far < least) [best, least] = [point, far];
    }
    if (!best) return hide();
    const [set, left, top, ...values] = best;
    const line = (axis, value) => make('div', '', (axis ? `${axis}: ` : '') + value);
    tip.replaceChildren(...(set.name ? [make('b', '', set.name)] : []),
      line(set.y, values[1]), line(set.x, values[0]));
    ring.style.left = `${100 * left}%`;
    tip.style.left = left < .5 ? `calc(${100 * left}% + .8rem)` : '';
    tip.style.right = left < .5 ? '' : `calc(${100 - 100 * left}% + .8rem)`;
    ring.style.top = tip.style.top = `${100 * top}%`;
    box.append(ring, tip);
  };
  const hide = () => { tip.remove(); ring.remove(); };
  box.addEventListener('pointermove', show);
  box.addEventListener('pointerdown', show);
  box.addEventListener('pointerleave', hide);
}

function enlarge(img) {
  const dialog = make('dialog', 'zoom'), view = make('div', 'view');
  const sheet = make('div', 'sheet'), copy = img.cloneNode();
  copy.removeAttribute('style');
  let scale = 1;
  const fit = () => Math.min(view.clientWidth,
    view.clientHeight * img.naturalWidth / img.naturalHeight);
  const zoom = (factor, event) => {
    const at = view.getBoundingClientRect(), before = sheet.getBoundingClientRect();
    const x = event?.clientX || at.x + at.width / 2, y = event?.clientY || at.y + at.height / 2;
    scale = Math.min(Math.max(scale * factor, 1), 40);
    sheet.style.width = `${scale * fit()}px`;
    const after = sheet.getBoundingClientRect(), grown = after.width / before.width;
    view.scrollLeft += after.x + (x - before.x) * grown - x;
    view.scrollTop += after.y + (y - before.y) * grown - y;
  };
  const tools = make('div', 'tools');
  tools.append(button('−', 'smaller', () => zoom(1 / 1.5)),
    button('+', 'larger', () => zoom(1.5)), button('×', 'close', () => dialog.close()));
  sheet.append(copy);
  view.append(sheet);
  dialog.append(view, tools);
  document.body.append(dialog);
  watch(sheet, copy);
  view.addEventListener('wheel', event => {
    event.preventDefault();
    zoom(1.0015 ** -event.deltaY, event);
  }, {passive: false});
  copy.draggable = false;
  view.addEventListener('pointermove', event => {
    if (event.pointerType === 'mouse' && event.buttons === 1) {
      view.scrollBy(-event.movementX, -event.movementY);
    }
  });
  dialog.addEventListener('close', () => dialog.remove());
  dialog.showModal();
  sheet.style.width = `${fit()}px`;
}

for (const img of document.querySelectorAll('.image img')) {
  watch(img.parentElement, img);
  img.parentElement.append(button('⤢', 'enlarge this figure', () => enlarge(img)));
}

function csv(table) {
  const value = cell => cell.dataset.v ?? cell.firstChild?.textContent ?? '';
  const beside = cell => [...cell.querySelectorAll('small')].map(s => s.textContent).join(' ');
  const plain = text => text.trim().replaceAll('−', '-').replace(/^–$/, '');
  const quoted = text => /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const heads = [...table.tHead.rows[0].cells], body = [...table.tBodies[0].rows];
  const two = heads.map((_, i) => body.some(row => row.cells[i].querySelector('small')));
  const line = texts => texts.map(text => quoted(plain(text))).join(',');
  const lines = [line(heads.flatMap((th, i) =>
    two[i] ? [th.textContent, `${th.textContent}, interval`] : [th.textContent]))];
  let first = '';  // a name that stands once for several rows
  for (const row of body) {
    const texts = [...row.cells].flatMap((cell, i) =>
      two[i] ? [value(cell), beside(cell)] : [value(cell)]);
    texts[0] = first = texts[0] || first;
    lines.push(line(texts));
  }
  return lines.join('\r\n') + '\r\n';
}

[...document.querySelectorAll('table.numbers')].forEach((table, i) => {
  const save = button('CSV', 'save this table as CSV', () => {
    const link = make('a', '', '', {download: `${document.title} ${i + 1}.csv`});
    link.href = URL.createObjectURL(new Blob(['\ufeff', csv(table)], {type: 'text/csv'}));
    link.click();
    URL.revokeObjectURL(link.href);
  });
  table.parentElement.before(save);
});

for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((th, i) => {
    const sort = make('button', '', '', {type: 'button'});
    sort.append(...th.childNodes);
    th.append(sort);
    const of = row => {
      const cell = row.cells[i];
      const text = cell.dataset.v ?? cell.firstChild?.textContent ?? '';
      return text.replace('−', '-').replace(/^[–+]/, '').trim();
    };
    sort.addEventListener('click', () => {
      const sign = th.getAttribute('aria-sort') === 'ascending' ? -1 : 1;
      heads.forEach(other => other.removeAttribute('aria-sort'));
      th.setAttribute('aria-sort', sign > 0 ? 'ascending' : 'descending');
      const order = (a, b) => {
        const [x, y] = [of(a), of(b)];
        if (!x || !y) return !x - !y;
        return sign * (isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y);
      };
      body.append(...[...body.rows].sort(order));
    });
  });
}
