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
  const MOST_KEPT = 320; // slices of 512 KiB
  const AHEAD = 60;
  const AT_ONCE = 4; // of the six connections that a browser opens, one hears events
  const base = `/cases/${viewer.dataset.case}/images`;
  const state = { slice: 0, window: [...WINDOWS.arteries], name: 'arteries', mip: false, circles: true, zoom: 1, pan: [0, 0] };
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
    slider.max = info.slices - 1;
    plane.width = info.columns;
    plane.height = info.rows;
    if (first) {
      say('Loading images…');
      go(info.findings.length ? info.findings[0].slice : Math.floor(info.slices / 2));
    } else go(clamp(state.slice, 0, info.slices - 1));
  }

  function go(slice) {
    if (!info) return;
    const next = clamp(slice, 0, info.slices - 1);
    if (next !== state.slice) direction = Math.sign(next - state.slice);
    state.slice = next;
    slider.value = next;
    slider.setAttribute('aria-valuetext', `slice ${next + 1} of ${info.slices}`);
    load();
    draw();
  }

  // The nearest first, more of them in the direction of scrolling; what is far away is given up.
  function load() {
    const order = [state.slice];
    for (let away = 1; away <= AHEAD; away++) {
      order.push(state.slice + away * direction);
      if (away <= AHEAD / 2) order.push(state.slice - away * direction);
    }
    for (const [slice, abort] of asked) {
      if (Math.abs(slice - state.slice) > AHEAD) { abort.abort(); asked.delete(slice); }
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
        if (slice === state.slice) say(await answer.text());
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
      const farthest = [...kept.keys()].reduce((a, b) => (Math.abs(a - state.slice) > Math.abs(b - state.slice) ? a : b));
      kept.delete(farthest);
    }
    const half = state.mip ? Math.round(MIP_MM / 2 / info.slice_mm) : 0;
    if (Math.abs(slice - state.slice) <= half) draw();
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
    if (!state.mip) return kept.get(state.slice);
    const half = Math.max(Math.round(MIP_MM / 2 / info.slice_mm), 1);
    let most = null;
    for (let slice = state.slice - half; slice <= state.slice + half; slice++) {
      const one = kept.get(slice);
      if (!one) continue;
      if (!most) most = one.slice();
      else for (let i = 0; i < one.length; i++) if (one[i] > most[i]) most[i] = one[i];
    }
    return most;
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
    const image = new ImageData(info.columns, info.rows);
    const out = new Uint32Array(image.data.buffer);
    for (let i = 0; i < values.length; i++) out[i] = lut[values[i] & 65535];
    plane.getContext('2d').putImageData(image, 0, 0);
    const pen = canvas.getContext('2d');
    const { scale, left, top, aspect } = placed();
    pen.fillStyle = '#000';
    pen.fillRect(0, 0, width, height);
    pen.imageSmoothingEnabled = true;
    pen.drawImage(plane, left, top, info.columns * scale, info.rows * scale * aspect);
    if (state.circles) info.findings.forEach((finding, index) => circle(pen, finding, index + 1, ratio));
    viewer.dataset.drawn = state.slice;
  }

  function placed() {
    const aspect = info.pixel_mm ? info.pixel_mm[0] / info.pixel_mm[1] : 1;
    const fit = Math.min(canvas.width / info.columns, canvas.height / (info.rows * aspect));
    const scale = fit * state.zoom;
    const left = (canvas.width - info.columns * scale) / 2 + state.pan[0];
    const top = (canvas.height - info.rows * scale * aspect) / 2 + state.pan[1];
    return { scale, left, top, aspect };
  }

  function circle(pen, finding, number, ratio) {
    const away = Math.abs(finding.slice - state.slice);
    const reach = Math.max(finding.half_slices, state.mip ? MIP_MM / 2 / info.slice_mm : 0);
    if (away > reach + 2) return;
    const { scale, left, top, aspect } = placed();
    const radius = Math.max(finding.radius * scale, 6 * ratio) + 5 * ratio;
    const [x, y] = [left + finding.x * scale, top + finding.y * scale * aspect];
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
    const at = info.positions_mm[state.slice];
    sliceWords.textContent = `${state.slice + 1} / ${info.slices}${at === undefined ? '' : `   ${at.toFixed(1)} mm`}`;
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
  for (const what of ['mip', 'circles']) document.getElementById(what).addEventListener('click', () => toggle(what));
  slider.addEventListener('input', () => go(Number(slider.value)));
  let wheel = 0;
  canvas.addEventListener('wheel', (event) => {
    event.preventDefault();
    if (event.ctrlKey) { zoomAt(event.deltaY < 0 ? 1.15 : 1 / 1.15, event.offsetX, event.offsetY); return; }
    wheel += event.deltaMode === 1 ? event.deltaY * 20 : event.deltaY;
    const steps = Math.trunc(wheel / 20);
    if (steps) { wheel -= steps * 20; go(state.slice + clamp(steps, -5, 5)); }
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
      if (steps) { wheel -= steps * 6; go(state.slice + steps); }
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
    ArrowUp: (by) => go(state.slice + by), ArrowDown: (by) => go(state.slice - by),
    PageUp: () => go(state.slice + 10), PageDown: () => go(state.slice - 10),
    m: () => toggle('mip'), o: () => toggle('circles'), 0: whole,
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
    if (finding) go(finding.slice);
  });
  document.addEventListener('willis:reviewed', open);
  new ResizeObserver(draw).observe(canvas);
  open();
})();
