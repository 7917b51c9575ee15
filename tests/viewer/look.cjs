// Opens one study in OHIF and looks at each series by its modality: node look.cjs BASE_URL STUDY_UID NAME FOLDER
// Prints one JSON object: what the page said, and the errors that the browser saw.
const path = require('path');
const { chromium } = require(path.resolve('var/viewer/tools/node_modules/playwright-core'));
const [base, study, name, folder] = process.argv.slice(2);

(async () => {
  const browser = await chromium.launchPersistentContext(path.join(folder, `profile-${name}`), {
    executablePath: '/usr/bin/chromium',
    headless: true,
    viewport: { width: 1400, height: 900 },
    args: ['--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', '--use-angle=swiftshader', '--enable-unsafe-swiftshader'],
  });
  const page = browser.pages()[0] ?? (await browser.newPage());
  const errors = [];
  page.on('pageerror', error => errors.push(String(error)));
  const said = {};
  const look = async what => {
    await page.screenshot({ path: path.join(folder, `${name}-${what}.png`) });
    said[what] = await page.innerText('body');
  };
  await page.addInitScript(() => localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour'])));
  await page.goto(`${base}/viewer?StudyInstanceUIDs=${study}`, { timeout: 120000 });
  await page.locator('[data-cy=study-browser-thumbnail]').first().waitFor({ timeout: 40000 })
    .catch(error => errors.push(`thumbnails: ${error.message.split('\n')[0]}`));
  await page.getByText('Skip all').click({ timeout: 3000 }).catch(() => undefined);  // the tour
  await page.waitForTimeout(4000);
  await look('opened');
  const summary = page.locator('[data-cy=study-browser-thumbnail]').filter({ hasText: /OT|summary/i }).first();
  await summary.dblclick({ timeout: 60000 }).catch(error => errors.push(`summary: ${error.message.split('\n')[0]}`));
  await page.waitForTimeout(3000);
  await look('summary');
  // A derived object opens on its key image; where OHIF can take it over as its own, it asks first.
  for (const [what, modality, panel] of [['report', 'SR', 'trackedMeasurements'], ['mask', 'SEG', 'panelSegmentation']]) {
    const derived = page.locator('[data-cy=study-browser-thumbnail-no-image]').filter({ hasText: modality }).first();
    if (await derived.count() === 0) continue;
    await derived.dblclick({ timeout: 30000 }).catch(error => errors.push(`${what}: ${error.message.split('\n')[0]}`));
    await page.waitForTimeout(6000);
    await look(`${what}-before`);
    await page.locator('[data-cy=yes-hydrate-btn]').click({ timeout: 5000 }).catch(() => undefined);
    await page.waitForTimeout(4000);
    await page.locator(`[data-cy=${panel}-btn]`).click({ timeout: 20000 })
      .catch(error => errors.push(`${panel}: ${error.message.split('\n')[0]}`));
    await page.waitForTimeout(4000);
    await look(what);
  }
  console.log(JSON.stringify({ said, errors }));
  await browser.close();
})().catch(error => { console.error(error); process.exit(1); });
