// The slices: HU from the server, windowed here, so that a window changes at once; findings circled where they lie.
(() => {
  const viewer = document.getElementById('viewer');
  const canvas = document.getElementById('slices');
  const slider = document.getElementById('slice');
  const message = document.getElementById('viewer-message');
  const [sliceWords, windowWords] = ['slice-words', 'window-words'].map((id) => document.getElementById(id));
  const WINDOWS = { // [level, width] in HU
    arteries: [240, 600], brain: [40, 80], subdural: [75, 215], bone: [500, 2500],
  };
  const NAMES = Object.keys(WINDOWS);
  const MIP_MM = 10;
  const VIEWS = ['axial', 'coronal', 'sagittal'];
  const MOST_KEPT = 480; // slices of 512 KiB
  const AHEAD = 60;
  const AT_ONCE = 4; // of the six connections that a browser opens, one hears events
  const base = `/cases/${viewer.dataset.case}/images`;
  const state = {
    view: 'axial', at: { axial: 0, coronal: 0, sagittal: 0 },
    window: [...WINDOWS.arteries], mip: false, circles: true, masks: false, zoom: 1, pan: [0, 0],
  };
  let info = null;
  let key = '';
  let direction = 1;
  let wanted = false;
  const kept = new Map(); // slice -> Int16Array
  const asked = new Map(); // slice -> AbortController
  const failed = new Set();
  const plane = document.createElement('canvas');
  const lut = new Uint32Array(65536);
  let lutFor = '';
  let levels = []; // from head to feet: the slice that is shown on each line of a plane across the slices

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const say = (words) => { message.textContent = words; message.hidden = !words; };

  async function open() {
    const review = document.getElementById('review');
    const newKey = review?.dataset.images ?? '';
    if (info && newKey === key) return;
    const first = !info;
    key = newKey;
    const answer = await fetch(base);
    const found = await answer.json().catch(() => ({ said: 'The images cannot be shown.' }));
    if (!answer.ok) { if (first) say(found.said); return; }
    info = found;
    kept.clear();
    failed.clear();
    levels = levelsOf(info.positions_mm);
    viewer.querySelector('#view').hidden = !info.is_stack;
    viewer.querySelector('#masks').hidden = !Object.keys(info.masks).length;
    if (first) {
      say('Loading images…');
      state.at = { axial: Math.floor(info.slices / 2), coronal: Math.floor(info.rows / 2), sagittal: Math.floor(info.columns / 2) };
      if (info.findings.length) aim(info.findings[0]);
    }
    setView(info.is_stack ? state.view : 'axial');
  }

  function levelsOf(positions) {
    if (!info.is_stack) return [];
    const lines = Math.round((positions.at(-1) - positions[0]) / info.slice_mm) + 1;
    let slice = positions.length - 1;
    return Array.from({ length: lines }, (_, line) => {
      const at = positions.at(-1) - line * info.slice_mm;
      while (slice > 0 && Math.abs(positions[slice - 1] - at) <= Math.abs(positions[slice] - at)) slice -= 1;
      return slice;
    });
  }

  // What the view shows: its size in pixels and their size in mm, how many such planes there are and how far apart.
  function geometry() {
    const [high, wide] = info.pixel_mm ?? [1, 1];
    const across = { height: levels.length, highMm: info.slice_mm };
    switch (state.view) {
      case 'coronal': return { ...across, width: info.columns, wideMm: wide, planes: info.rows, apartMm: high };
      case 'sagittal': return { ...across, width: info.rows, wideMm: high, planes: info.columns, apartMm: wide };
      default: return { width: info.columns, height: info.rows, wideMm: wide, highMm: high, planes: info.slices, apartMm: info.slice_mm };
    }
  }
  const here = () => state.at[state.view];
  const halfSlab = () => (state.mip ? Math.max(Math.round(MIP_MM / 2 / geometry().apartMm), 1) : 0);

  function setView(view) {
    state.view = view;
    viewer.dataset.view = view;
    document.getElementById('view-name').textContent = view;
    const { width, height, planes } = geometry();
    [plane.width, plane.height] = [width, height];
    slider.max = planes - 1;
    const [left, right, above, below, head, feet] = info.marks;
    const marks = { axial: [left, right, above, below], coronal: [left, right, head, feet], sagittal: [above, below, head, feet] }[view];
    viewer.querySelectorAll('.side').forEach((each, index) => { each.textContent = marks[index] ?? ''; });
    go(here());
  }
  const nextView = () => { if (info.is_stack) setView(VIEWS[(VIEWS.indexOf(state.view) + 1) % VIEWS.length]); };
  function aim(finding) {
    state.at = { axial: finding.slice, coronal: Math.floor(finding.y), sagittal: Math.floor(finding.x) };
  }

  function go(to) {
    if (!info) return;
    const { planes } = geometry();
    const next = clamp(to, 0, planes - 1);
    if (next !== here()) direction = Math.sign(next - here());
    state.at[state.view] = next;
    slider.value = next;
    slider.setAttribute('aria-valuetext', `${state.view === 'axial' ? 'slice' : state.view} ${next + 1} of ${planes}`);
    load();
    draw();
  }

  // The nearest first, more of them in the direction of scrolling; what is far away is given up.
  function load() {
    const middle = state.at.axial;
    const [ahead, behind] = state.view === 'axial' ? [AHEAD, AHEAD / 2] : [MOST_KEPT / 2 - 1, MOST_KEPT / 2 - 1];
    const order = [middle];
    for (let away = 1; away <= ahead; away++) {
      order.push(middle + away * direction);
      if (away <= behind) order.push(middle - away * direction);
    }
    for (const [slice, abort] of asked) {
      if (Math.abs(slice - middle) > ahead) { abort.abort(); asked.delete(slice); }
    }
    for (const slice of order) {
      if (asked.size >= AT_ONCE) break;
      if (slice >= 0 && slice < info.slices && !kept.has(slice) && !asked.has(slice) && !failed.has(slice)) ask(slice);
    }
  }

  async function ask(slice) {
    const abort = new AbortController();
    const mine = key;
    asked.set(slice, abort);
    try {
      const answer = await fetch(`${base}/${slice}?${mine}`, { signal: abort.signal });
      if (!answer.ok) {
        failed.add(slice);
        if (slice === state.at.axial) say(await answer.text());
      } else {
        const pixels = new Int16Array(await answer.arrayBuffer());
        if (mine === key && pixels.length === info.rows * info.columns) keep(slice, pixels);
        else failed.add(slice);
      }
    } catch (error) {
      if (error.name !== 'AbortError') { failed.add(slice); setTimeout(() => { failed.delete(slice); load(); }, 3000); }
    }
    if (asked.get(slice) === abort) asked.delete(slice);
    load();
  }

  function keep(slice, pixels) {
    kept.set(slice, pixels);
    if (kept.size > MOST_KEPT) {
      const farthest = [...kept.keys()].reduce((a, b) => (Math.abs(a - state.at.axial) > Math.abs(b - state.at.axial) ? a : b));
      kept.delete(farthest);
    }
    if (state.view !== 'axial' || Math.abs(slice - here()) <= halfSlab()) draw();
  }

  function draw() {
    if (wanted) return;
    wanted = true;
    requestAnimationFrame(() => { wanted = false; paint(); });
  }

  function grey() {
    const [level, width] = state.window;
    if (lutFor === `${level} ${width}`) return;
    lutFor = `${level} ${width}`;
    const low = level - width / 2;
    for (let value = -32768; value < 32768; value++) {
      const shade = clamp(((value - low) / width) * 255, 0, 255) & 255;
      lut[value & 65535] = (0xff000000 | (shade << 16) | (shade << 8) | shade) >>> 0;
    }
  }

  function pixels() {
    const [from, to] = [here() - halfSlab(), here() + halfSlab()];
    if (state.view !== 'axial') return acrossSlices(from, to);
    if (from === to) return kept.get(from);
    let most = null;
    for (let slice = from; slice <= to; slice++) {
      const one = kept.get(slice);
      if (!one) continue;
      if (!most) most = one.slice();
      else for (let i = 0; i < one.length; i++) if (one[i] > most[i]) most[i] = one[i];
    }
    return most;
  }

  // The brightest of the rows (coronal) or columns (sagittal) from .. to, line by line; a slice that is not here is black.
  function acrossSlices(from, to) {
    const { width, planes } = geometry();
    const [along, step] = state.view === 'coronal' ? [1, info.columns] : [info.columns, 1];
    const [first, last] = [Math.max(from, 0), Math.min(to, planes - 1)];
    const found = new Int16Array(width * levels.length).fill(-32768);
    levels.forEach((slice, line) => {
      const one = kept.get(slice);
      if (!one) return;
      for (let x = 0; x < width; x++) {
        let most = -32768;
        for (let plane_ = first, i = x * along + first * step; plane_ <= last; plane_++, i += step) if (one[i] > most) most = one[i];
        found[line * width + x] = most;
      }
    });
    return found;
  }

  function paint() {
    if (!info) return;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const values = pixels();
    words();
    if (!values) return;
    say('');
    grey();
    const image = new ImageData(plane.width, plane.height);
    const out = new Uint32Array(image.data.buffer);
    for (let i = 0; i < values.length; i++) out[i] = lut[values[i] & 65535];
    if (state.masks) paintMasks(image.data);
    plane.getContext('2d').putImageData(image, 0, 0);
    const pen = canvas.getContext('2d');
    const { scale, left, top, aspect } = placed();
    pen.fillStyle = '#000';
    pen.fillRect(0, 0, width, height);
    pen.imageSmoothingEnabled = true;
    pen.drawImage(plane, left, top, plane.width * scale, plane.height * scale * aspect);
    if (state.circles) info.findings.forEach((finding, index) => circle(pen, finding, index + 1, ratio));
    viewer.dataset.drawn = here();
  }

  // Half sky blue over the pixels that the model took for a finding, in the plane or the slab that is shown.
  function paintMasks(data) {
    const [from, to] = [here() - halfSlab(), here() + halfSlab()];
    const painted = new Set();
    const put = (x, y) => painted.add(y * plane.width + x);
    for (const [name, runs] of Object.entries(info.masks)) {
      const slice = Number(name);
      const line = levels.indexOf(slice);
      for (const [, row, start, length] of runs) {
        for (let column = start; column < start + length; column++) {
          if (state.view === 'axial' && slice >= from && slice <= to) put(column, row);
          if (state.view === 'coronal' && row >= from && row <= to && line >= 0) put(column, line);
          if (state.view === 'sagittal' && column >= from && column <= to && line >= 0) put(row, line);
        }
      }
    }
    for (const i of painted) [86, 180, 233].forEach((shade, channel) => { data[i * 4 + channel] = (data[i * 4 + channel] + shade) / 2; });
    viewer.dataset.masked = painted.size;
  }

  function placed() {
    const { wideMm, highMm } = geometry();
    const aspect = highMm / wideMm;
    const fit = Math.min(canvas.width / plane.width, canvas.height / (plane.height * aspect));
    const scale = fit * state.zoom;
    const left = (canvas.width - plane.width * scale) / 2 + state.pan[0];
    const top = (canvas.height - plane.height * scale * aspect) / 2 + state.pan[1];
    return { scale, left, top, aspect };
  }

  // Where a finding is in this view: x and y in pixels of the plane, and the number of the plane through its middle.
  function spot(finding) {
    const line = levels.indexOf(finding.slice) + 0.5;
    switch (state.view) {
      case 'coronal': return { x: finding.x, y: line, at: finding.y - 0.5 };
      case 'sagittal': return { x: finding.y, y: line, at: finding.x - 0.5 };
      default: return { x: finding.x, y: finding.y, at: finding.slice };
    }
  }

  function circle(pen, finding, number, ratio) {
    const { wideMm, apartMm } = geometry();
    const { x: column, y: line, at } = spot(finding);
    const away = Math.abs(at - here());
    const reach = Math.max(finding.radius_mm / apartMm, halfSlab());
    if (away > reach + 2) return;
    const { scale, left, top, aspect } = placed();
    const radius = Math.max((finding.radius_mm / wideMm) * scale, 6 * ratio) + 5 * ratio;
    const [x, y] = [left + column * scale, top + line * scale * aspect];
    pen.lineWidth = 2 * ratio;
    pen.setLineDash(away <= reach / 2 + 0.5 ? [] : [5 * ratio, 5 * ratio]);
    pen.strokeStyle = '#ffbe3c';
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    pen.stroke();
    pen.setLineDash([]);
    pen.font = `${14 * ratio}px system-ui, sans-serif`;
    pen.fillStyle = '#ffbe3c';
    pen.fillText(String(number), x + radius * 0.75 + 3 * ratio, y - radius * 0.75);
  }

  function words() {
    const at = state.view === 'axial' ? info.positions_mm[here()] : undefined;
    const loaded = state.view !== 'axial' && kept.size < info.slices ? `   ${kept.size} of ${info.slices} slices loaded` : '';
    const name = state.view === 'axial' ? '' : `${state.view} `;
    sliceWords.textContent = `${name}${here() + 1} / ${geometry().planes}${at === undefined ? '' : `   ${at.toFixed(1)} mm`}${loaded}`;
    const [level, width] = state.window.map(Math.round);
    windowWords.textContent = `L ${level}  W ${width}${state.mip ? '  MIP 10 mm' : ''}`;
  }

  function setWindow(name) {
    state.window = [...WINDOWS[name]];
    press(name);
    draw();
  }
  function press(name) {
    viewer.querySelectorAll('[data-window]').forEach((each) => each.setAttribute('aria-pressed', String(each.dataset.window === name)));
  }
  function toggle(what) {
    state[what] = !state[what];
    document.getElementById(what).setAttribute('aria-pressed', String(state[what]));
    draw();
  }
  function whole() { state.zoom = 1; state.pan = [0, 0]; draw(); }
  function zoomAt(factor, x, y) {
    const zoom = clamp(state.zoom * factor, 1, 12);
    const ratio = devicePixelRatio || 1;
    const from = [x * ratio - canvas.width / 2 - state.pan[0], y * ratio - canvas.height / 2 - state.pan[1]];
    state.pan = state.pan.map((pan, i) => pan - from[i] * (zoom / state.zoom - 1));
    state.zoom = zoom;
    if (zoom === 1) state.pan = [0, 0];
    draw();
  }

  viewer.querySelectorAll('[data-window]').forEach((each) => each.addEventListener('click', () => setWindow(each.dataset.window)));
  document.getElementById('view').addEventListener('click', nextView);
  for (const what of ['mip', 'circles', 'masks']) document.getElementById(what).addEventListener('click', () => toggle(what));
  slider.addEventListener('input', () => go(Number(slider.value)));
  let wheel = 0;
  canvas.addEventListener('wheel', (event) => {
    event.preventDefault();
    if (event.ctrlKey) { zoomAt(event.deltaY < 0 ? 1.15 : 1 / 1.15, event.offsetX, event.offsetY); return; }
    wheel += event.deltaMode === 1 ? event.deltaY * 20 : event.deltaY;
    const steps = Math.trunc(wheel / 20);
    if (steps) { wheel -= steps * 20; go(here() + clamp(steps, -5, 5)); }
  }, { passive: false });

  // One finger scrolls, the mouse changes the window, the right or middle button moves the image, two fingers zoom.
  const fingers = new Map();
  let before = 0;
  canvas.addEventListener('contextmenu', (event) => event.preventDefault());
  canvas.addEventListener('pointerdown', (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event);
    before = 0;
  });
  canvas.addEventListener('pointermove', (event) => {
    const last = fingers.get(event.pointerId);
    if (!last || !info) return;
    const [dx, dy] = [event.clientX - last.clientX, event.clientY - last.clientY];
    fingers.set(event.pointerId, event);
    if (fingers.size === 2) {
      const [a, b] = [...fingers.values()];
      const apart = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
      if (before) zoomAt(apart / before, (a.offsetX + b.offsetX) / 2, (a.offsetY + b.offsetY) / 2);
      before = apart;
    } else if (event.pointerType === 'touch') {
      wheel += dy;
      const steps = Math.trunc(wheel / 6);
      if (steps) { wheel -= steps * 6; go(here() + steps); }
    } else if (event.buttons & 6) {
      const ratio = devicePixelRatio || 1;
      state.pan = [state.pan[0] + dx * ratio, state.pan[1] + dy * ratio];
      draw();
    } else if (event.buttons & 1) {
      state.window = [state.window[0] + dy * 2, Math.max(state.window[1] + dx * 3, 1)];
      press('');
      draw();
    }
  });
  for (const end of ['pointerup', 'pointercancel']) canvas.addEventListener(end, (event) => { fingers.delete(event.pointerId); before = 0; });
  canvas.addEventListener('dblclick', whole);

  const KEYS = {
    ArrowUp: (by) => go(here() + by), ArrowDown: (by) => go(here() - by),
    PageUp: () => go(here() + 10), PageDown: () => go(here() - 10),
    m: () => toggle('mip'), o: () => toggle('circles'), s: () => toggle('masks'), v: nextView, 0: whole,
  };
  NAMES.forEach((name, index) => { KEYS[index + 1] = () => setWindow(name); });
  document.addEventListener('keydown', (event) => {
    if (event.target.matches?.('input, textarea, select') || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector('dialog[open]') || (localStorage.getItem('keys') === 'off' && event.key.length === 1)) return;
    const action = KEYS[event.key];
    if (action && info) { event.preventDefault(); action(event.shiftKey ? 10 : 1); }
  });
  document.addEventListener('willis:show', (event) => {
    const finding = info?.findings[event.detail - 1];
    if (finding) { aim(finding); go(here()); }
  });
  document.addEventListener('willis:reviewed', open);
  new ResizeObserver(draw).observe(canvas);
  open();
})();
