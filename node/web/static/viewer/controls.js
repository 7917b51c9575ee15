// Wheel, fingers, mouse and keys become what the viewer does.

import { clamp } from './planes.js';

// One finger scrolls, the mouse changes the window or turns an oblique plane, the right or middle button moves the image,
// two fingers zoom.
export function listenToPointer(canvas, { go, zoomAt, pan, drag, whole }) {
  let wheel = 0;
  canvas.addEventListener('wheel', (event) => {
    event.preventDefault();
    if (event.ctrlKey) { zoomAt(event.deltaY < 0 ? 1.15 : 1 / 1.15, event.offsetX, event.offsetY); return; }
    wheel += event.deltaMode === 1 ? event.deltaY * 20 : event.deltaY;
    const steps = Math.trunc(wheel / 20);
    if (steps) { wheel -= steps * 20; go(clamp(steps, -5, 5)); }
  }, { passive: false });

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
    if (!last) return;
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
      if (steps) { wheel -= steps * 6; go(steps); }
    } else if (event.buttons & 6) {
      pan(dx, dy);
    } else if (event.buttons & 1) {
      drag(dx, dy, event.shiftKey);
    }
  });
  for (const end of ['pointerup', 'pointercancel']) canvas.addEventListener(end, (event) => { fingers.delete(event.pointerId); before = 0; });
  canvas.addEventListener('dblclick', whole);
}

// `actions`: by the key's name; each gets 10 with the shift key, else 1, and says false where the key is not its own now.
export function listenToKeys(actions) {
  document.addEventListener('keydown', (event) => {
    if (event.target.matches?.('input, textarea, select') || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector('dialog[open]') || (localStorage.getItem('keys') === 'off' && event.key.length === 1)) return;
    const action = actions[event.key];
    if (action && action(event.shiftKey ? 10 : 1) !== false) event.preventDefault();
  });
}
