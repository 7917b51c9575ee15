// A plane's values become grey pixels, masks and circles on a canvas.

import { clamp, lineOf, millimetres, onOblique, withinVoxel } from './planes.js';

const MASK = [86, 180, 233]; // sky blue
const CIRCLE = '#ffbe3c';
const lut = new Uint32Array(65536);
let lutFor = '';

// The shade of each value in a window of `level` and `width` HU.
export function shades([level, width]) {
  if (lutFor === `${level} ${width}`) return lut;
  lutFor = `${level} ${width}`;
  const low = level - width / 2;
  for (let value = -32768; value < 32768; value++) {
    const shade = clamp(((value - low) / width) * 255, 0, 255) & 255;
    lut[value & 65535] = (0xff000000 | (shade << 16) | (shade << 8) | shade) >>> 0;
  }
  return lut;
}

// The values on a canvas of their own, with the mask over them.
export function paintPlane(plane, values, window, masked) {
  const shade = shades(window);
  const image = new ImageData(plane.width, plane.height);
  const out = new Uint32Array(image.data.buffer);
  for (let i = 0; i < values.length; i++) out[i] = shade[values[i] & 65535];
  for (const i of masked) MASK.forEach((each, channel) => { image.data[i * 4 + channel] = (image.data[i * 4 + channel] + each) / 2; });
  plane.getContext('2d').putImageData(image, 0, 0);
}

// The pixels that the model took for a finding, in the plane or the slab from .. to.
export function maskedPixels(volume, view, turned, width, from, to) {
  if (view === 'oblique') return maskedOblique(volume, turned, width, from, to);
  const painted = new Set();
  const put = (x, y) => painted.add(y * width + x);
  for (const [name, runs] of Object.entries(volume.masks)) {
    const slice = Number(name);
    const line = volume.is_stack ? Math.round(lineOf(volume, slice)) : -1;
    for (const [, row, start, length] of runs) {
      for (let column = start; column < start + length; column++) {
        if (view === 'axial' && slice >= from && slice <= to) put(column, row);
        if (view === 'coronal' && row >= from && row <= to) put(column, line);
        if (view === 'sagittal' && column >= from && column <= to) put(row, line);
      }
    }
  }
  return painted;
}

// The same in the oblique slab, whose pixels lie across the voxels: each voxel is painted point by point.
function maskedOblique(volume, turned, width, from, to) {
  const painted = new Set();
  const offsets = withinVoxel(volume);
  for (const [name, runs] of Object.entries(volume.masks)) {
    for (const [, row, start, length] of runs) {
      for (let column = start; column < start + length; column++) {
        const middle = millimetres(volume, { x: column + 0.5, y: row + 0.5, slice: Number(name) });
        for (const offset of offsets) {
          const { x, y, at } = onOblique(turned, middle.map((value, i) => value + offset[i]));
          const [u, v] = [Math.ceil(x - 0.5), Math.ceil(y - 0.5)];
          if (at >= from && at <= to && u >= 0 && v >= 0 && u < width && v < width) painted.add(v * width + u);
        }
      }
    }
  }
  return painted;
}

// A circle with its number; dashed where the plane passes it by.  `placed`: where the plane is on the canvas.
export function drawCircle(pen, placed, { x: column, y: line }, radiusPixels, number, isThrough, ratio) {
  const { scale, left, top, aspect } = placed;
  const radius = Math.max(radiusPixels * scale, 6 * ratio) + 5 * ratio;
  const [x, y] = [left + column * scale, top + line * scale * aspect];
  pen.lineWidth = 2 * ratio;
  pen.setLineDash(isThrough ? [] : [5 * ratio, 5 * ratio]);
  pen.strokeStyle = CIRCLE;
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.stroke();
  pen.setLineDash([]);
  pen.font = `${14 * ratio}px system-ui, sans-serif`;
  pen.fillStyle = CIRCLE;
  pen.fillText(String(number), x + radius * 0.75 + 3 * ratio, y - radius * 0.75);
  return { x: x / ratio, y: y / ratio };
}
