// Opens one study in OHIF and looks at what is in it: node look.cjs BASE_URL STUDY_UID NAME FOLDER SIGHTS
// SIGHTS is a JSON list of {step, words, gone, colours}: what must be read, not read, and seen on a viewport after the step.
// Each is waited for; none is taken for granted after some seconds.  Prints one JSON object: what the page said, what was
// missing, the errors that the browser saw, and after which steps the viewport had to be drawn anew.
const path = require('path');
const { chromium } = require(path.resolve('var/viewer/tools/node_modules/playwright-core'));
const [base, study, name, folder, sights] = process.argv.slice(2);
const [WIDTH, HEIGHT] = [1400, 900];
const TRY_MS = 15000; // before the viewport is drawn anew
const TRIES = 4;

// In the page: what is not as it should be.  OHIF draws images and masks on 2D canvases, regions and texts as SVG.
function lacking({ words, gone, colours }) {
  const text = document.body.innerText;
  const count = (canvas, colour) => {
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let pixels = 0;
    for (let i = 0; i < data.length; i += 4) {
      pixels += colour.every((value, channel) => Math.abs(data[i + channel] - value) <= 12);
    }
    return pixels;
  };
  const canvases = [...document.querySelectorAll('canvas.cornerstone-canvas')];
  const resized = canvases.filter(({ width, clientWidth }) => Math.abs(width - clientWidth * devicePixelRatio) > 1);
  return [
    ...words.filter(each => !text.includes(each)).map(each => `'${each}' is not shown`),
    ...gone.filter(each => text.includes(each)).map(each => `'${each}' is still shown`),
    ...colours.filter(each => !canvases.some(canvas => count(canvas, each) >= 20)).map(each => `no pixels of rgb(${each})`),
    ...resized.map(() => 'a viewport is being resized'),
  ];
}

(async () => {
  const browser = await chromium.launchPersistentContext(path.join(folder, `profile-${name}`), {
    executablePath: '/usr/bin/chromium',
    headless: true,
    viewport: { width: WIDTH, height: HEIGHT },
    args: ['--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', '--use-angle=swiftshader', '--enable-unsafe-swiftshader'],
  });
  const page = browser.pages()[0] ?? (await browser.newPage());
  page.setDefaultTimeout(60000);
  const [said, missing, errors, redrawn, took_ms] = [{}, [], [], [], {}];
  page.on('pageerror', error => errors.push(error.stack ?? String(error)));
  page.on('console', message => message.type() === 'error' && errors.push(message.text()));
  // OHIF keeps rejected promises from the browser's console, and shows "Something went wrong".
  await page.addInitScript({ content: `window.lacking = ${lacking};
    addEventListener('unhandledrejection', event => console.error(event.reason?.stack ?? event.reason));
    localStorage.setItem('shownTours', '["basicViewerTour"]');` });

  const images = page.locator('[data-cy=study-browser-thumbnail]');
  const derived = page.locator('[data-cy=study-browser-thumbnail-no-image]');
  const yes = page.locator('[data-cy=yes-hydrate-btn]');
  // A derived object opens on its key image; where OHIF can take it over as its own, it asks first.
  const takeOver = async panel => {
    if (await yes.isVisible()) await yes.click();
    await page.locator(`[data-cy=${panel}-btn]`).click();
  };
  const steps = {
    opened: () => page.goto(`${base}/viewer?StudyInstanceUIDs=${study}`),
    summary: () => images.filter({ hasText: 'Willis summary' }).dblclick(),
    'report-before': () => derived.filter({ hasText: 'SR' }).dblclick(),
    report: () => takeOver('trackedMeasurements'),
    'mask-before': () => derived.filter({ hasText: 'SEG' }).dblclick(),
    mask: () => takeOver('panelSegmentation'),
  };

  const waitFor = async (step, expected) => {
    for (let tries = 1; tries <= TRIES; tries++) {
      try {
        return await page.waitForFunction(each => lacking(each).length === 0, expected, { timeout: TRY_MS, polling: 100 });
      } catch (error) {
        if (error.name !== 'TimeoutError') throw error;
      }
      if (tries < TRIES) {
        redrawn.push(step);
        await page.setViewportSize({ width: WIDTH + (redrawn.length % 2), height: HEIGHT });
      }
    }
  };

  for (const { step, ...expected } of JSON.parse(sights)) {
    const began = Date.now();
    try {
      await steps[step]();
      await waitFor(step, expected);
      missing.push(...(await page.evaluate(lacking, expected)).map(each => `${step}: ${each}`));
    } catch (error) {
      missing.push(`${step}: ${error.message.split('\n')[0]}`);
    }
    took_ms[step] = Date.now() - began;
    said[step] = await page.innerText('body');
    await page.screenshot({ path: path.join(folder, `${name}-${step}.png`) });
  }
  console.log(JSON.stringify({ said, missing, errors, redrawn, took_ms }));
  await browser.close();
})().catch(error => { console.error(error); process.exit(1); });
