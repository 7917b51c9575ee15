// Keys, the mark that says whether the page is live, and what must survive when a part of the page is drawn anew.
const find = (selector, within = document) => within.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];

// The stream of events: a page that hears nothing must not look as if nothing had happened, nor one that gets no answer.
const LIVE = {
  live: 'Live', away: 'Database away', lost: 'Connection lost, this list may be old', waiting: 'Connecting',
  failed: 'Update failed, this list may be old',
};
const SILENT_MS = 40000;
let silence;
let stream = 'waiting';
let unanswered = ''; // what the mark says instead of "Live" since what is shown could not be had anew
function showLive() {
  const mark = find('#live');
  const state = stream === 'live' && unanswered ? unanswered : stream;
  if (!mark || mark.dataset.state === state) return;
  mark.dataset.state = state;
  find('.words', mark).textContent = LIVE[state];
}
function setLive(state) {
  stream = state;
  showLive();
}
function heard(state) {
  setLive(state);
  clearTimeout(silence);
  silence = setTimeout(() => setLive('lost'), SILENT_MS);
}
document.addEventListener('htmx:sseOpen', (event) => {
  const { source } = event.detail;
  heard('live');
  source.addEventListener('changed', () => heard('live'));
  source.addEventListener('grown', ({ data }) => {
    heard('live');
    if (data.split(' ').some((caseId) => find(`[data-case="${caseId}"]`))) htmx.trigger(document.body, 'grown');
  });
  source.addEventListener('alive', () => heard(stream));
  source.addEventListener('away', () => heard('away'));
});
document.addEventListener('htmx:sseError', () => setLive('lost'));

// What was refused, or not answered, is said: a page on which nothing happens looks as if it were done.
function sayInstead(words) {
  const line = document.createElement('p');
  line.className = 'wrong';
  line.textContent = words;
  find('#notice')?.replaceChildren(line);
}
function reasonOf(xhr) {
  const page = new DOMParser().parseFromString(xhr.responseText, 'text/html');
  return find('[role=alert]', page)?.textContent ?? `Willis answers ${xhr.status}.`;
}
document.addEventListener('htmx:responseError', ({ detail: { xhr, requestConfig } }) => {
  if (requestConfig.verb !== 'get') { sayInstead(`Not done: ${reasonOf(xhr)}`); return; }
  unanswered = xhr.status === 503 ? 'away' : 'failed';
  showLive();
});
document.addEventListener('htmx:sendError', ({ detail: { requestConfig } }) => {
  unanswered = 'lost';
  showLive();
  if (requestConfig.verb !== 'get') sayInstead('Willis does not answer: whether this was done is not known.');
});
document.addEventListener('htmx:afterRequest', ({ detail: { successful, requestConfig } }) => {
  if (!successful || requestConfig.verb !== 'get') return;
  unanswered = '';
  showLive();
});

// What has the focus keeps it when its part of the page is replaced; what was opened stays open.
let kept = null;
const title = (details) => find('summary', details).firstChild.textContent.trim();
document.addEventListener('htmx:beforeSwap', (event) => {
  const { target } = event.detail;
  const row = document.activeElement?.closest?.('tr[data-case]');
  kept = {
    caseId: row?.dataset.case,
    index: row ? all('tr[data-case]').indexOf(row) : -1,
    inReview: target.id === 'review' && target.contains(document.activeElement),
    open: target.id === 'review' ? new Map([...target.querySelectorAll('details.more')].map((each) => [title(each), each.open])) : new Map(),
    finding: find('.found.current')?.dataset.finding,
    reportIsOpen: find('#report details')?.open,
  };
});
document.addEventListener('htmx:afterSwap', (event) => {
  if (!kept) return;
  if (event.detail.target.id === 'list' && kept.index >= 0) {
    const rows = all('tr[data-case]');
    const row = rows.find((each) => each.dataset.case === kept.caseId) ?? rows[Math.min(kept.index, rows.length - 1)];
    find('.open', row)?.focus();
  }
  if (event.detail.target.id === 'review') {
    all('#review details.more').forEach((each) => { each.open = kept.open.get(title(each)) ?? each.open; });
    const report = find('#report details');
    if (report && kept.reportIsOpen !== undefined) report.open = kept.reportIsOpen;
    if (kept.finding) setCurrent(find(`.found[data-finding="${kept.finding}"]`));
    if (kept.inReview) find('.found.current .show, .acknowledge button, .undo button', find('#review'))?.focus();
    document.dispatchEvent(new CustomEvent('willis:reviewed'));
  }
  kept = null; // the event comes again for what was replaced beside it
});
document.addEventListener('htmx:configRequest', (event) => {
  if (event.detail.elt.id === 'filters' && event.detail.parameters.q === '') delete event.detail.parameters.q;
});

// Findings: one is the current one, which the keys are about.
function setCurrent(finding) {
  if (!finding) return;
  all('.found').forEach((each) => each.classList.toggle('current', each === finding));
}
function show(finding, focus = true) {
  if (!finding) return;
  setCurrent(finding);
  if (focus) find('.show', finding).focus({ preventScroll: true });
  document.dispatchEvent(new CustomEvent('willis:show', { detail: Number(finding.dataset.finding) }));
}
document.addEventListener('click', (event) => {
  const button = event.target.closest?.('[data-show]');
  if (button) show(button.closest('.found'));
});
const current = () => find('.found.current') ?? find('.found');
function openReasons(finding) {
  const reasons = finding && find('details.reject', finding);
  if (!reasons) return;
  setCurrent(finding);
  reasons.open = true;
  find('button', reasons).focus();
}

function step(by) {
  const rows = all('tr[data-case]');
  if (rows.length) {
    const at = rows.indexOf(document.activeElement?.closest?.('tr[data-case]'));
    const next = rows[at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(Math.max(at + by, 0), rows.length - 1)];
    find('.open', next).focus();
    next.scrollIntoView({ block: 'nearest' });
    return;
  }
  const findings = all('.found');
  if (findings.length) {
    const at = findings.indexOf(find('.found.current'));
    show(findings[(at + by + findings.length) % findings.length]);
  }
}
function submit(selector) {
  const here = document.activeElement?.closest?.('tr[data-case], .found');
  const form = (here && find(selector, here)) ?? (find('#review') ? find(`#review ${selector}`) : null);
  if (form) find('button', form).click(); // a click, so that the button's value is sent
}
const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  a: () => submit('form.acknowledge'),
  y: () => current() && find('form.accept button', current())?.click(),
  r: () => {
    const row = document.activeElement?.closest?.('tr[data-case]');
    if (row) location.assign(`${find('.open', row).href}#reject`);
    else openReasons(current());
  },
  u: () => find('form.undo button')?.click(),
  '/': () => find('#q')?.focus(),
  '?': () => find('#help').showModal(),
  Escape: () => { if (find('.back')) location.assign(find('.back').href); },
};
// One key, one decision: a key that is held and the second click of two would decide on what has moved up meanwhile.
const DECIDING = new Set(['a', 'y', 'r', 'u']);
const decides = (element) => Boolean(element?.closest?.('form[hx-post] button'));
let hasDecided = false; // by a click before this one of the same series
document.addEventListener('click', (event) => {
  if (event.detail === 1) hasDecided = false;
  if (event.detail === 0 || !decides(event.target)) return; // 0: by a key
  if (hasDecided) { event.preventDefault(); event.stopPropagation(); }
  hasDecided = true;
}, true);
document.addEventListener('keydown', (event) => {
  if (event.repeat && (DECIDING.has(event.key) || (event.key === 'Enter' && decides(event.target)))) {
    if (decides(event.target)) event.preventDefault();
    return;
  }
  const typing = event.target.matches?.('input:not([type=range]):not([type=checkbox]), textarea, select');
  if (event.key === 'Escape' && event.target.id === 'q') event.target.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey || find('dialog[open]')) return;
  if (event.key === 'Escape') {
    const reasons = find('details.reject[open]');
    if (reasons) { reasons.open = false; find('summary', reasons).focus(); return; }
  }
  if (localStorage.getItem('keys') === 'off' && event.key.length === 1) return;
  const action = KEYS[event.key];
  if (action) { event.preventDefault(); action(); }
});

document.addEventListener('DOMContentLoaded', () => {
  find('#help-button')?.addEventListener('click', () => find('#help').showModal());
  const keysOn = find('#keys-on');
  if (keysOn) {
    keysOn.checked = localStorage.getItem('keys') !== 'off';
    keysOn.addEventListener('change', () => localStorage.setItem('keys', keysOn.checked ? 'on' : 'off'));
  }
  find('#theme-button')?.addEventListener('click', () => {
    const dark = getComputedStyle(document.documentElement).getPropertyValue('--is-dark').trim() === '1';
    document.documentElement.dataset.theme = dark ? 'light' : 'dark';
    localStorage.setItem('theme', dark ? 'light' : 'dark');
  });
  setCurrent(find('.found'));
  if (location.hash === '#reject') openReasons(current());
});
