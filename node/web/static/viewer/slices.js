// The slices as HU, fetched in the order in which they will be wanted; what is far away is given up and forgotten.

const MOST_KEPT = 480; // slices of 512 KiB
const AHEAD = 60;
const AGAIN_MS = 3000; // after this nobody has answered, or nobody may ask: the next try
const FAILED_AGAIN_MS = 30000; // the same for one slice that failed
const AT_ONCE = 4; // of the six connections that a browser opens, one hears events

export class Slices {
  // `arrived(slice)` and `failed(slice)` are called for each, `outdated()` when the slices are others by now.
  constructor(base, arrived, failed, outdated) {
    [this.base, this.arrived, this.failed, this.outdated] = [base, arrived, failed, outdated];
    this.kept = new Map(); // slice -> Int16Array
    this.asked = new Map(); // slice -> AbortController
    this.lost = new Map(); // slice -> why it cannot be shown
    this.resting = new Set(); // of the lost ones: what is not asked for now, or never again
    this.isPaused = false; // nobody answers
    this.isOutdated = false; // the slices are others by now
    [this.key, this.count, this.length] = ['', 0, 0];
    [this.middle, this.direction, this.all] = [0, 1, false];
  }

  // Nothing is kept; slices are those of this state of the case.
  open(key, count, length) {
    [this.key, this.count, this.length, this.isOutdated] = [key, count, length, false];
    for (const abort of this.asked.values()) abort.abort();
    for (const known of [this.kept, this.asked, this.lost, this.resting]) known.clear();
  }

  // The nearest first, more of them in the direction of scrolling; `all`: as many as are kept, for planes across them.
  load(middle, direction, all) {
    [this.middle, this.direction, this.all] = [middle, direction, all];
    this.next();
  }

  next() {
    if (this.isPaused || this.isOutdated) return;
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
      const known = this.kept.has(slice) || this.asked.has(slice) || this.resting.has(slice);
      if (slice >= 0 && slice < this.count && !known) this.ask(slice);
    }
  }

  async ask(slice) {
    const abort = new AbortController();
    const mine = this.key;
    this.asked.set(slice, abort);
    try {
      const answer = await fetch(`${this.base}/${slice}?key=${mine}`, { signal: abort.signal });
      const pixels = answer.ok ? new Int16Array(await answer.arrayBuffer()) : null;
      const why = answer.ok ? 'it is of another size than the others.' : (await answer.text()) || `Willis answers ${answer.status}.`;
      if (mine !== this.key) return;
      if (pixels?.length === this.length) this.keep(slice, pixels);
      else if (answer.ok || [404, 409, 410].includes(answer.status)) this.lose(slice, why, Infinity);
      else if ([401, 503].includes(answer.status)) this.pause(slice, why);
      else this.lose(slice, why, FAILED_AGAIN_MS);
      if (answer.status === 409 && !this.isOutdated) {
        this.isOutdated = true;
        this.outdated();
      }
    } catch (error) {
      if (error.name === 'AbortError' || mine !== this.key) return;
      this.pause(slice, 'Willis does not answer.');
    } finally {
      if (this.asked.get(slice) === abort) this.asked.delete(slice);
    }
    this.next();
  }

  lose(slice, why, againMs) {
    this.lost.set(slice, why);
    this.resting.add(slice);
    const mine = this.key;
    const again = () => { if (mine === this.key && this.resting.delete(slice)) this.next(); };
    if (againMs < Infinity) setTimeout(again, againMs);
    this.failed(slice);
  }

  // What concerns every slice is not asked for each.
  pause(slice, why) {
    this.lose(slice, why, AGAIN_MS);
    if (this.isPaused) return;
    this.isPaused = true;
    setTimeout(() => { this.isPaused = false; this.next(); }, AGAIN_MS);
  }

  keep(slice, pixels) {
    this.kept.set(slice, pixels);
    this.lost.delete(slice);
    if (this.kept.size > MOST_KEPT) {
      const farthest = [...this.kept.keys()].reduce((a, b) => (Math.abs(a - this.middle) > Math.abs(b - this.middle) ? a : b));
      this.kept.delete(farthest);
    }
    this.arrived(slice);
  }
}
