// The slices as HU, fetched in the order in which they will be wanted; what is far away is given up and forgotten.

const MOST_KEPT = 480; // slices of 512 KiB
const AHEAD = 60;
const AT_ONCE = 4; // of the six connections that a browser opens, one hears events

export class Slices {
  // `arrived(slice)` and `failed(slice, words)` are called for each.
  constructor(base, arrived, failed) {
    [this.base, this.arrived, this.failed] = [base, arrived, failed];
    this.kept = new Map(); // slice -> Int16Array
    this.asked = new Map(); // slice -> AbortController
    this.lost = new Set();
    [this.key, this.count, this.length] = ['', 0, 0];
    [this.middle, this.direction, this.all] = [0, 1, false];
  }

  // Nothing is kept; slices are those of this state of the case.
  open(key, count, length) {
    [this.key, this.count, this.length] = [key, count, length];
    for (const abort of this.asked.values()) abort.abort();
    for (const known of [this.kept, this.asked, this.lost]) known.clear();
  }

  // The nearest first, more of them in the direction of scrolling; `all`: as many as are kept, for planes across them.
  load(middle, direction, all) {
    [this.middle, this.direction, this.all] = [middle, direction, all];
    this.next();
  }

  next() {
    const { middle, direction } = this;
    const around = this.count <= MOST_KEPT ? this.count : MOST_KEPT / 2 - 1;
    const [ahead, behind] = this.all ? [around, around] : [AHEAD, AHEAD / 2];
    const order = [middle];
    for (let away = 1; away <= ahead; away++) {
      order.push(middle + away * direction);
      if (away <= behind) order.push(middle - away * direction);
    }
    for (const [slice, abort] of this.asked) {
      if (Math.abs(slice - middle) > ahead) { abort.abort(); this.asked.delete(slice); }
    }
    for (const slice of order) {
      if (this.asked.size >= AT_ONCE) break;
      const known = this.kept.has(slice) || this.asked.has(slice) || this.lost.has(slice);
      if (slice >= 0 && slice < this.count && !known) this.ask(slice);
    }
  }

  async ask(slice) {
    const abort = new AbortController();
    const mine = this.key;
    this.asked.set(slice, abort);
    try {
      const answer = await fetch(`${this.base}/${slice}?${mine}`, { signal: abort.signal });
      if (!answer.ok) {
        this.lost.add(slice);
        this.failed(slice, await answer.text());
      } else {
        const pixels = new Int16Array(await answer.arrayBuffer());
        if (mine !== this.key) return;
        if (pixels.length === this.length) this.keep(slice, pixels);
        else this.lost.add(slice);
      }
    } catch (error) {
      if (error.name !== 'AbortError') { this.lost.add(slice); setTimeout(() => { this.lost.delete(slice); this.next(); }, 3000); }
    }
    if (this.asked.get(slice) === abort) this.asked.delete(slice);
    this.next();
  }

  keep(slice, pixels) {
    this.kept.set(slice, pixels);
    if (this.kept.size > MOST_KEPT) {
      const farthest = [...this.kept.keys()].reduce((a, b) => (Math.abs(a - this.middle) > Math.abs(b - this.middle) ? a : b));
      this.kept.delete(farthest);
    }
    this.arrived(slice);
  }
}
