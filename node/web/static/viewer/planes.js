// Planes through the slices, in pure functions: which there are, how large, and what values lie on them.
// `volume`: what the server says of the case, with `levels`: from head to feet, the slice on each line across the slices.

export const MIP_MM = 10;
const OBLIQUE = { pixels: 256, pixelMm: 0.5, planes: 121, apartMm: 1 };
const BLACK = -32768;

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

export function levelsOf({ is_stack: isStack, positions_mm: positions, slice_mm: sliceMm }) {
  if (!isStack) return [];
  const lines = Math.round((positions.at(-1) - positions[0]) / sliceMm) + 1;
  let slice = positions.length - 1;
  return Array.from({ length: lines }, (_, line) => {
    const at = positions.at(-1) - line * sliceMm;
    while (slice > 0 && Math.abs(positions[slice - 1] - at) <= Math.abs(positions[slice] - at)) slice -= 1;
    return slice;
  });
}

// Where the slice lies among the lines, by its position: with uneven spacing some slices are on no line.
export function lineOf(volume, slice) {
  return clamp((volume.positions_mm.at(-1) - volume.positions_mm[slice]) / volume.slice_mm, 0, volume.levels.length - 1);
}

// What a view shows: its size in pixels and their size in mm, how many such planes there are and how far apart.
export function geometry(volume, view) {
  const [high, wide] = volume.pixel_mm ?? [1, 1];
  const { rows, columns, slices, levels, slice_mm: sliceMm } = volume;
  switch (view) {
    case 'coronal': return { height: levels.length, highMm: sliceMm, width: columns, wideMm: wide, planes: rows, apartMm: high };
    case 'sagittal': return { height: levels.length, highMm: sliceMm, width: rows, wideMm: high, planes: columns, apartMm: wide };
    case 'oblique': {
      const { pixels, pixelMm, planes, apartMm } = OBLIQUE;
      return { height: pixels, highMm: pixelMm, width: pixels, wideMm: pixelMm, planes, apartMm };
    }
    default: return { width: columns, height: rows, wideMm: wide, highMm: high, planes: slices, apartMm: sliceMm };
  }
}

export const halfSlab = (volume, view, mip) => (mip || view === 'oblique' ? Math.max(Math.round(MIP_MM / 2 / geometry(volume, view).apartMm), 1) : 0);

// Where a finding is in a view: x and y in pixels of the plane, and the number of the plane through its middle.
export function spot(volume, view, turned, finding) {
  switch (view) {
    case 'coronal': return { x: finding.x, y: lineOf(volume, finding.slice) + 0.5, at: finding.y - 0.5 };
    case 'sagittal': return { x: finding.y, y: lineOf(volume, finding.slice) + 0.5, at: finding.x - 0.5 };
    case 'oblique': return onOblique(turned, millimetres(volume, finding));
    default: return { x: finding.x, y: finding.y, at: finding.slice };
  }
}

// Where a point in mm is in the oblique view: x and y in pixels of the plane, and the number of the plane through it.
export function onOblique(turned, point) {
  const { right, down, normal } = axes(turned);
  const from = difference(point, turned.centre);
  const { pixels, pixelMm, planes, apartMm } = OBLIQUE;
  return {
    x: pixels / 2 + dot(from, right) / pixelMm, y: pixels / 2 + dot(from, down) / pixelMm,
    at: (planes - 1) / 2 + dot(from, normal) / apartMm,
  };
}

// Offsets in mm from the middle of a voxel to points in it that are no further apart than the pixels of an oblique plane.
export function withinVoxel(volume) {
  const [high, wide] = volume.pixel_mm;
  const along = [wide, high, volume.slice_mm].map((size) => {
    const number = Math.max(Math.ceil(size / OBLIQUE.pixelMm), 1);
    return Array.from({ length: number }, (_, i) => ((i + 0.5) / number - 0.5) * size);
  });
  return along[0].flatMap((x) => along[1].flatMap((y) => along[2].map((z) => [x, y, z])));
}

// Along a row, down a column and towards the head, from the middle of the first pixel of the lowest slice.
export function millimetres(volume, { x, y, slice }) {
  const [high, wide] = volume.pixel_mm ?? [1, 1];
  return [(x - 0.5) * wide, (y - 0.5) * high, (volume.positions_mm[slice] ?? 0) - (volume.positions_mm[0] ?? 0)];
}

export const middleOf = (volume) => millimetres(volume, { x: volume.columns / 2, y: volume.rows / 2, slice: Math.floor(volume.slices / 2) });
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const difference = (a, b) => a.map((value, i) => value - b[i]);

// The plane's axes after `yaw` about the patient's long axis and `pitch` about the line across the plane, in degrees.
// Both 0: a coronal plane.
export function axes({ yaw, pitch }) {
  const [a, b] = [yaw, pitch].map((degrees) => (degrees * Math.PI) / 180);
  const [ca, sa, cb, sb] = [Math.cos(a), Math.sin(a), Math.cos(b), Math.sin(b)];
  return { right: [ca, sa, 0], down: [-sa * sb, ca * sb, -cb], normal: [-sa * cb, ca * cb, sb] };
}

// The brightest of the planes from .. to of a view; null while none of its slices is here.
export function valuesOn(volume, kept, view, turned, from, to) {
  switch (view) {
    case 'axial': return brightestSlice(kept, from, to);
    case 'oblique': return brightestOblique(volume, kept, turned, from, to);
    default: return brightestAcross(volume, kept, view, from, to);
  }
}

function brightestSlice(kept, from, to) {
  if (from === to) return kept.get(from) ?? null;
  let most = null;
  for (let slice = from; slice <= to; slice++) {
    const one = kept.get(slice);
    if (!one) continue;
    if (!most) most = one.slice();
    else for (let i = 0; i < one.length; i++) if (one[i] > most[i]) most[i] = one[i];
  }
  return most;
}

// Rows (coronal) or columns (sagittal), line by line; a slice that is not here is black.
function brightestAcross(volume, kept, view, from, to) {
  const { width, planes } = geometry(volume, view);
  const [along, step] = view === 'coronal' ? [1, volume.columns] : [volume.columns, 1];
  const [first, last] = [Math.max(from, 0), Math.min(to, planes - 1)];
  const found = new Int16Array(width * volume.levels.length).fill(BLACK);
  volume.levels.forEach((slice, line) => {
    const one = kept.get(slice);
    if (!one) return;
    for (let x = 0; x < width; x++) {
      let most = BLACK;
      for (let plane = first, i = x * along + first * step; plane <= last; plane++, i += step) if (one[i] > most) most = one[i];
      found[line * width + x] = most;
    }
  });
  return found;
}

// The nearest voxel to each point of the slab, a pixel apart in each direction; what is outside is black.
function brightestOblique(volume, kept, turned, from, to) {
  const { pixels, pixelMm, planes, apartMm } = OBLIQUE;
  const { rows, columns, levels, slice_mm: sliceMm } = volume;
  const [high, wide] = volume.pixel_mm;
  const lines = levels.map((slice) => kept.get(slice));
  const { right, down, normal } = axes(turned);
  const unit = [1 / wide, 1 / high, -1 / sliceMm]; // lines are counted from the head
  const perPixel = [right, down, normal].map((axis) => axis.map((value, i) => value * pixelMm * unit[i]));
  const [du, dv, dn] = perPixel;
  const steps = Math.round(((to - from) * apartMm) / pixelMm) + 1;
  const start = ((from - (planes - 1) / 2) * apartMm) / pixelMm;
  const origin = turned.centre.map((value, i) => value * unit[i] + start * dn[i] - (pixels / 2) * (du[i] + dv[i]) + 0.5);
  origin[2] += levels.length - 1;
  const found = new Int16Array(pixels * pixels).fill(BLACK);
  for (let v = 0, at = 0; v < pixels; v++) {
    for (let u = 0; u < pixels; u++, at++) {
      let x = origin[0] + u * du[0] + v * dv[0];
      let y = origin[1] + u * du[1] + v * dv[1];
      let z = origin[2] + u * du[2] + v * dv[2];
      let most = BLACK;
      for (let n = 0; n < steps; n++, x += dn[0], y += dn[1], z += dn[2]) {
        if (x < 0 || y < 0 || z < 0 || x >= columns || y >= rows || z >= lines.length) continue;
        const one = lines[z | 0];
        if (!one) continue;
        const value = one[(y | 0) * columns + (x | 0)];
        if (value > most) most = value;
      }
      found[at] = most;
    }
  }
  return found;
}
