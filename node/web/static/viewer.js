// The images of a case: HU from the server, windowed here, so that a window changes at once; findings circled where they lie.
// An ES module: planes.js has the geometry, slices.js fetches, drawing.js paints, controls.js listens.

import { listenToKeys, listenToPointer } from './viewer/controls.js';
import { drawCircle, maskedPixels, paintPlane } from './viewer/drawing.js';
import { clamp, geometry, halfSlab, levelsOf, middleOf, millimetres, MIP_MM, spot, valuesOn } from './viewer/planes.js';
import { Slices } from './viewer/slices.js';

const viewer = document.getElementById('viewer');
const canvas = document.getElementById('slices');
const slider = document.getElementById('slice');
const message = document.getElementById('viewer-message');
const [sliceWords, windowWords] = ['slice-words', 'window-words'].map((id) => document.getElementById(id));
const WINDOWS = { // [level, width] in HU
  arteries: [240, 600], brain: [40, 80], subdural: [75, 215], bone: [500, 2500],
};
const VIEWS = ['axial', 'coronal', 'sagittal', 'oblique'];
const TURN_DEGREES = 5;
const LATE_MS = 200; // so long another slice stays on the canvas
const AGAIN_MS = 3000;
const base = `/cases/${viewer.dataset.case}/images`;
const state = {
  view: 'axial', at: Object.fromEntries(VIEWS.map((view) => [view, 0])), turned: { yaw: 0, pitch: 0, centre: [0, 0, 0] },
  window: [...WINDOWS.arteries], mip: false, circles: true, masks: false, zoom: 1, pan: [0, 0],
};
const plane = document.createElement('canvas');
let volume = null;
let key = '';
let direction = 1;
let wanted = false;
let gone = ''; // why there are no images
let opening = 0; // a timer, until it is tried again
let isOpening = false;
let opened = -Infinity; // when the list was asked for, in ms
let late = 0; // a timer, while what should be on the canvas is not here

const say = (words) => { message.textContent = words; message.hidden = !words; };
const here = () => state.at[state.view];
const half = () => halfSlab(volume, state.view, state.mip);
const slices = new Slices(
  base,
  (slice) => { if (state.view !== 'axial' || Math.abs(slice - here()) <= half()) draw(); },
  (slice) => { if (state.view === 'axial' && Math.abs(slice - here()) <= half()) draw(); },
  () => { key = ''; openSoon(); },
);

// While slices come, each makes the list of them an old one: it is read again at once, and then every few seconds.
function openSoon() {
  clearTimeout(opening);
  opening = setTimeout(open, Math.max(0, opened + AGAIN_MS - performance.now()));
}

async function open() {
  const newKey = document.getElementById('review')?.dataset.images ?? '';
  if (volume && newKey === key) return;
  if (isOpening) { openSoon(); return; }
  [isOpening, opened] = [true, performance.now()];
  try { await read(newKey); } finally { isOpening = false; }
}

async function read(newKey) {
  const first = !volume;
  const answer = await fetch(base).catch(() => null);
  const found = await answer?.json().catch(() => null);
  if (!answer?.ok || !found) {
    slices.open('', 0, 0); // slices of the new state would be drawn at the old one's positions, under its circles
    [key, gone] = ['', found?.message ?? 'The images cannot be shown.'];
    paintNothing();
    if (![404, 410].includes(answer?.status)) openSoon();
    return;
  }
  [key, gone] = [newKey, ''];
  volume = { ...found, levels: levelsOf(found) };
  slices.open(found.key, volume.slices, volume.rows * volume.columns);
  viewer.querySelector('#view').hidden = !volume.is_stack;
  viewer.querySelector('#masks').hidden = !Object.keys(volume.masks).length;
  if (first) {
    say('Loading images…');
    Object.assign(state.at, { axial: Math.floor(volume.slices / 2), coronal: Math.floor(volume.rows / 2), sagittal: Math.floor(volume.columns / 2) });
    center(middleOf(volume));
    if (volume.findings.length) aim(volume.findings[0]);
  }
  setView(volume.is_stack ? state.view : 'axial');
}

function setView(view) {
  state.view = view;
  viewer.dataset.view = view;
  document.getElementById('view-name').textContent = view;
  const { width, height, planes } = geometry(volume, view);
  [plane.width, plane.height] = [width, height];
  slider.max = planes - 1;
  const [left, right, above, below, head, feet] = volume.marks;
  const marks = { axial: [left, right, above, below], coronal: [left, right, head, feet], sagittal: [above, below, head, feet] }[view] ?? [];
  viewer.querySelectorAll('.side').forEach((each, index) => { each.textContent = marks[index] ?? ''; });
  go(here());
}
const nextView = () => { if (volume.is_stack) setView(VIEWS[(VIEWS.indexOf(state.view) + 1) % VIEWS.length]); };

function center(at) {
  state.turned.centre = at;
  state.at.oblique = (geometry(volume, 'oblique').planes - 1) / 2;
}
function aim(finding) {
  Object.assign(state.at, { axial: finding.slice, coronal: Math.floor(finding.y), sagittal: Math.floor(finding.x) });
  center(millimetres(volume, finding));
}
function turn(yaw, pitch) {
  if (state.view !== 'oblique') return false;
  state.turned.yaw = (state.turned.yaw + yaw + 540) % 360 - 180;
  state.turned.pitch = clamp(state.turned.pitch + pitch, -90, 90);
  draw();
  return true;
}

function go(to) {
  if (!volume) return;
  const { planes } = geometry(volume, state.view);
  const next = clamp(to, 0, planes - 1);
  if (next !== here()) direction = Math.sign(next - here());
  state.at[state.view] = next;
  slider.value = next;
  slider.setAttribute('aria-valuetext', `${state.view === 'axial' ? 'slice' : state.view} ${next + 1} of ${planes}`);
  slices.load(state.at.axial, direction, state.view !== 'axial');
  draw();
}

function draw() {
  if (wanted || !volume) return;
  wanted = true;
  requestAnimationFrame(() => { wanted = false; paint(); });
}

function paint() {
  const ratio = devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const [from, to] = [here() - half(), here() + half()];
  const values = valuesOn(volume, slices.kept, state.view, state.turned, from, to);
  words();
  if (gone || !values) { paintNothing(); return; }
  clearTimeout(late);
  late = 0;
  say('');
  const masked = state.masks ? maskedPixels(volume, state.view, state.turned, plane.width, from, to) : new Set();
  if (state.masks) viewer.dataset.masked = masked.size;
  paintPlane(plane, values, state.window, masked);
  blacken();
  const pen = canvas.getContext('2d');
  const { scale, left, top, aspect } = placed();
  pen.imageSmoothingEnabled = true;
  pen.drawImage(plane, left, top, plane.width * scale, plane.height * scale * aspect);
  if (state.circles) volume.findings.forEach((finding, index) => circle(pen, finding, index + 1, ratio));
  viewer.dataset.drawn = here();
}

// Another slice is not left under the words of this one.
function paintNothing() {
  const why = () => gone || (slices.lost.has(here()) ? `Slice ${here() + 1} cannot be shown: ${slices.lost.get(here())}` : '');
  const nothing = () => {
    clearTimeout(late);
    late = 0;
    blacken();
    say(why() || 'Loading images…');
  };
  if (why()) nothing();
  else late ||= setTimeout(nothing, LATE_MS);
}
function blacken() {
  const pen = canvas.getContext('2d');
  pen.fillStyle = '#000';
  pen.fillRect(0, 0, canvas.width, canvas.height);
  delete viewer.dataset.drawn;
}

function placed() {
  const { wideMm, highMm } = geometry(volume, state.view);
  const aspect = highMm / wideMm;
  const fit = Math.min(canvas.width / plane.width, canvas.height / (plane.height * aspect));
  const scale = fit * state.zoom;
  const left = (canvas.width - plane.width * scale) / 2 + state.pan[0];
  const top = (canvas.height - plane.height * scale * aspect) / 2 + state.pan[1];
  return { scale, left, top, aspect };
}

function circle(pen, finding, number, ratio) {
  const { wideMm, apartMm } = geometry(volume, state.view);
  const found = spot(volume, state.view, state.turned, finding);
  const away = Math.abs(found.at - here());
  const reach = Math.max(finding.radius_mm / apartMm, half());
  if (away > reach + 2) return;
  const { x, y } = drawCircle(pen, placed(), found, finding.radius_mm / wideMm, number, away <= reach / 2 + 0.5, ratio);
  viewer.dataset[`circle${number}`] = `${x.toFixed(1)} ${y.toFixed(1)}`;
}

function words() {
  const at = state.view === 'axial' ? volume.positions_mm[here()] : undefined;
  const loaded = state.view !== 'axial' && slices.kept.size < volume.slices ? `   ${slices.kept.size} of ${volume.slices} slices loaded` : '';
  const missing = [...slices.lost.keys()].filter((slice) => half() && state.view === 'axial' && Math.abs(slice - here()) <= half());
  const without = missing.length ? `   without slice ${missing.map((slice) => slice + 1).sort((a, b) => a - b).join(', ')}` : '';
  const name = { axial: '', oblique: `oblique ${state.turned.yaw}° ${state.turned.pitch}°  ` }[state.view] ?? `${state.view} `;
  sliceWords.textContent = `${name}${here() + 1} / ${geometry(volume, state.view).planes}${at === undefined ? '' : `   ${at.toFixed(1)} mm`}${loaded}${without}`;
  const [level, width] = state.window.map(Math.round);
  windowWords.textContent = `L ${level}  W ${width}${half() ? `  MIP ${MIP_MM} mm` : ''}`;
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
function pan(dx, dy) {
  const ratio = devicePixelRatio || 1;
  state.pan = [state.pan[0] + dx * ratio, state.pan[1] + dy * ratio];
  draw();
}
function zoomAt(factor, x, y) {
  const zoom = clamp(state.zoom * factor, 1, 12);
  const ratio = devicePixelRatio || 1;
  const from = [x * ratio - canvas.width / 2 - state.pan[0], y * ratio - canvas.height / 2 - state.pan[1]];
  state.pan = state.pan.map((each, i) => each - from[i] * (zoom / state.zoom - 1));
  state.zoom = zoom;
  if (zoom === 1) state.pan = [0, 0];
  draw();
}
function drag(dx, dy, isShifted) {
  if (!isShifted && turn(dx, -dy)) return;
  state.window = [state.window[0] + dy * 2, Math.max(state.window[1] + dx * 3, 1)];
  press('');
  draw();
}

viewer.querySelectorAll('[data-window]').forEach((each) => each.addEventListener('click', () => setWindow(each.dataset.window)));
document.getElementById('view').addEventListener('click', nextView);
for (const what of ['mip', 'circles', 'masks']) document.getElementById(what).addEventListener('click', () => toggle(what));
slider.addEventListener('input', () => go(Number(slider.value)));
listenToPointer(canvas, { go: (by) => go(here() + by), zoomAt, pan, drag, whole });

const KEYS = {
  ArrowUp: (by) => turn(0, TURN_DEGREES * by) || go(here() + by), ArrowDown: (by) => turn(0, -TURN_DEGREES * by) || go(here() - by),
  ArrowLeft: (by) => turn(-TURN_DEGREES * by, 0), ArrowRight: (by) => turn(TURN_DEGREES * by, 0),
  PageUp: () => go(here() + 10), PageDown: () => go(here() - 10),
  m: () => toggle('mip'), o: () => toggle('circles'), s: () => toggle('masks'), v: nextView, 0: whole,
};
Object.keys(WINDOWS).forEach((name, index) => { KEYS[index + 1] = () => setWindow(name); });
for (const [name, action] of Object.entries(KEYS)) KEYS[name] = (by) => (volume ? action(by) : false);
listenToKeys(KEYS);
document.addEventListener('willis:show', (event) => {
  const finding = volume?.findings[event.detail - 1];
  if (finding) { aim(finding); go(here()); }
});
document.addEventListener('willis:reviewed', open);
new ResizeObserver(draw).observe(canvas);
open();
