"use strict";
// Tables that sort and filter, and charts of the numbers beside them. The page can be read without.
(() => {
  const numberOf = (cell) => Number(cell.dataset.v);
  const knownNumberOf = (cell) => (isNumber(cell) ? numberOf(cell) : null);
  const isNumber = (cell) => cell.dataset.v !== undefined;

  function compare(one, other) {
    if (isNumber(one) && isNumber(other)) return numberOf(one) - numberOf(other);
    return one.textContent.localeCompare(other.textContent, "en", { numeric: true });
  }

  function sortBy(table, heading) {
    const column = heading.cellIndex;
    const first = heading.classList.contains("n") ? "descending" : "ascending";
    const second = first === "ascending" ? "descending" : "ascending";
    const order = heading.getAttribute("aria-sort") === first ? second : first;
    for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const rows = [...body.rows];
    rows.sort((one, other) => sign * compare(one.cells[column], other.cells[column]));
    body.append(...rows);
  }

  function makeSortable(table) {
    if (table.tBodies[0].rows.length < 2) return;
    for (const heading of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = heading.textContent;
      button.addEventListener("click", () => sortBy(table, heading));
      heading.replaceChildren(button);
    }
  }

  function makeFilterable(table, number) {
    const rows = [...table.tBodies[0].rows];
    if (rows.length < 8) return;
    const texts = rows.map((row) =>
      [...row.cells].map((cell) => `${cell.textContent} ${cell.title}`).join(" ").toLowerCase(),
    );
    const box = document.createElement("div");
    box.className = "filter-box";
    const label = document.createElement("label");
    const input = document.createElement("input");
    const count = document.createElement("output");
    input.type = "search";
    input.id = `filter-${number}`;
    label.htmlFor = input.id;
    label.textContent = "Filter";
    box.append(label, input, count);
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, at) => {
        row.hidden = !wanted.every((word) => texts[at].includes(word));
        shown += row.hidden ? 0 : 1;
      });
      count.textContent = wanted.length ? `${shown} of ${rows.length}` : "";
    });
    table.closest(".scroll").before(box);
  }

  const colour = (name) =>
    getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];
  const COLOURS = { "other tools": "foreign-0", "unreadable refs": "unreadable" };

  function saySize(bytes) {
    let value = bytes;
    let unit = 0;
    while (Math.abs(value) >= 999.5 && unit < UNITS.length - 1) {
      value /= 1000;
      unit += 1;
    }
    return `${unit && value < 100 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
  }

  function columnsOf(table) {
    const names = [...table.tHead.rows[0].cells].map((heading) => heading.textContent);
    const rows = [...table.tBodies[0].rows].reverse();
    return { names, values: names.map((_, at) => rows.map((row) => knownNumberOf(row.cells[at]))) };
  }

  const DAY = 86400;
  const DAYS = [1, 2, 7, 14, 28, 56].map((days) => days * DAY);
  const HOURS = [1, 3, 6, 12].map((hours) => hours * 3600);
  const MINUTES = [1, 60, 300, 900].map((seconds) => seconds);

  function sayTick(seconds, step) {
    const text = new Date(seconds * 1000).toISOString();
    if (step >= DAY || seconds % DAY === 0) return text.slice(5, 10);
    return step >= 60 ? text.slice(11, 16) : text.slice(11, 19);
  }

  // Without a pointer on the chart, the legend shows the last value.
  const shownIndex = (values, index) => Math.min(index ?? Infinity, values.length - 1);

  const sayMoment = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ");
  const sayDay = (seconds) => sayMoment(seconds).slice(0, 10);

  const saySeries = (say) => (chart, _, series, index) => {
    const value = chart.data[series][shownIndex(chart.data[series], index)];
    return value == null ? "" : say(value);
  };

  // What the last run found is still so: its line goes on for a bit, or nobody would see it.
  const LATER = 0.04;
  const later = (times) => [...times, times.at(-1) + Math.max(1, (times.at(-1) - times[0]) * LATER)];
  const still = (values) => [...values, values.at(-1)];

  // What a run found stays so until the next one: lines step.
  const steps = () => uPlot.paths.stepped({ align: 1 });

  function axes(say, increments) {
    const stroke = colour("quiet");
    const grid = { stroke: colour("line"), width: 1 };
    return [
      {
        stroke,
        grid,
        ticks: grid,
        incrs: increments,
        space: 64,
        size: 32,
        values: (_, ticks, __, ___, step) => ticks.map((tick) => sayTick(tick, step)),
      },
      { stroke, grid, ticks: grid, size: 72, values: (_, ticks) => ticks.map(say) },
    ];
  }

  function draw(figure, title, data, series, say, { increments = [...MINUTES, ...HOURS, ...DAYS], pad = 0, quota = 0, marks = [], when = "time", sayWhen = sayMoment, goesOn = false } = {}) {
    const heading = document.createElement("h3");
    heading.textContent = title;
    const place = document.createElement("div");
    figure.append(heading, place);
    const width = figure.clientWidth;
    const times = data[0];
    const chart = new uPlot(
      {
        width,
        height: Math.round(Math.min(260, Math.max(180, width * 0.4))),
        axes: axes(say, increments),
        hooks: { draw: [(chart) => { drawQuota(chart, quota); drawMarks(chart, marks); }] },
        scales: {
          x: { range: (_, first, last) => [first - pad, last + pad] },
          y: { range: (_, __, most) => [0, Math.max(most * 1.05, quota < 2 * most ? quota * 1.12 : 0, 1)] },
        },
        series: [{ label: when, value: (_, __, ___, index) => sayWhen(times[shownIndex(times, index)]) }, ...series],
        cursor: { y: false, drag: { x: false, y: false } },
        tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      },
      goesOn ? [later(times), ...data.slice(1).map(still)] : data,
      place,
    );
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", `${title}: the numbers are in the table below`);
    return chart;
  }

  function drawQuota(chart, quota) {
    const { ctx, bbox } = chart;
    const y = chart.valToPos(quota, "y", true);
    if (!quota || y < bbox.top) return;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = colour("ink");
    ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
    ctx.lineWidth = devicePixelRatio;
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    const label = `quota ${saySize(quota)}`;
    const left = bbox.left + 6 * devicePixelRatio;
    ctx.textAlign = "left";
    ctx.textBaseline = "middle";
    ctx.font = `${12 * devicePixelRatio}px system-ui, sans-serif`;
    const width = ctx.measureText(label).width;
    ctx.fillStyle = colour("paper");
    ctx.fillRect(left - 3 * devicePixelRatio, y - 8 * devicePixelRatio, width + 6 * devicePixelRatio, 16 * devicePixelRatio);
    ctx.fillStyle = colour("ink");
    ctx.fillText(label, left, y);
    ctx.restore();
  }

  // A triangle on the axis for each day on which something was evicted: at noon, or at the end of the
  // chart if that is earlier, as on the day of the last run.
  function drawMarks(chart, marks) {
    const { ctx, bbox } = chart;
    const size = 6 * devicePixelRatio;
    const bottom = bbox.top + bbox.height;
    ctx.save();
    ctx.fillStyle = colour("unread");
    ctx.strokeStyle = colour("paper");
    ctx.lineWidth = 1.5 * devicePixelRatio;
    const { min, max } = chart.scales.x;
    for (const day of marks) {
      if (day + DAY <= min || day > max) continue;
      const x = chart.valToPos(Math.min(Math.max(day + DAY / 2, min), max), "x", true);
      ctx.beginPath();
      ctx.moveTo(x, bottom - 2 * size);
      ctx.lineTo(x - size, bottom);
      ctx.lineTo(x + size, bottom);
      ctx.closePath();
      ctx.fill();
      ctx.stroke();
    }
    ctx.restore();
  }

  // Python counts days from the year 1; uPlot wants seconds from 1970.
  function evictionDays() {
    const table = document.querySelector("table.evictions");
    if (!table) return [];
    const { names, values } = columnsOf(table);
    return values[names.indexOf("day")].map((day) => (day - 719163) * DAY);
  }

  function drawTrend(figure, table) {
    const { names, values } = columnsOf(table);
    const times = values[names.indexOf("time")];
    if (times.length < 2) return false;
    const usable = values[names.indexOf("usable")];
    const ofRuns = (_chart, _series, isShown) => (isShown ? [...times.keys()] : null);
    const lines = [
      { label: "usable results", stroke: colour("reachable"), width: 2, paths: steps(), points: { filter: ofRuns }, value: saySeries(sayNumber) },
    ];
    const marks = evictionDays();
    if (usable.some((results) => results !== null)) {
      draw(figure, "Results that builds can use", [times, usable], lines, sayNumber, { marks, goesOn: true });
    }
    const quota = Number(figure.dataset.quota ?? 0);
    drawStates(figure, times, names.slice(4), values.slice(4), { quota, marks, goesOn: true });
    if (marks.length) {
      const note = document.createElement("p");
      note.className = "hint";
      const mark = document.createElement("span");
      mark.className = "mark";
      mark.textContent = "▲";
      note.append(mark, " On this day, a run noticed evictions.");
      figure.append(note);
    }
    return true;
  }

  const sayNumber = (value) => value.toLocaleString("en");

  // Each state stands on those before it, so the line on top is all that is stored.
  function drawStates(figure, times, states, sizes, options) {
    const sums = [];
    let below = times.map(() => 0);
    for (const values of sizes) {
      below = below.map((sum, at) => sum + values[at]);
      sums.push(below);
    }
    const series = states.map((state, at) => ({
      label: state,
      stroke: colour(COLOURS[state] ?? state),
      fill: colour(COLOURS[state] ?? state),
      width: 1,
      paths: steps(),
      points: { show: false },
      value: (_chart, _sum, _series, index) => saySize(sizes[at][shownIndex(times, index)]),
    }));
    // The highest is drawn first, so that each covers the part that is not its own.
    draw(figure, "Bytes stored, by state", [times, ...sums.reverse()], series.reverse(), saySize, options);
  }

  function drawEvictions(figure, table) {
    const { names, values } = columnsOf(table);
    const days = evictionDays();
    if (days.length < 2) return false;
    const bars = uPlot.paths.bars({ size: [0.6, 40] });
    const series = [
      { label: "evicted", stroke: colour("unread"), fill: colour("unread"), paths: bars, points: { show: false }, value: saySeries(saySize) },
    ];
    const sizes = values[names.indexOf("size")];
    draw(figure, "Bytes evicted, by the day on which a run noticed it", [days, sizes], series, saySize, { increments: DAYS, pad: DAY / 2, when: "day", sayWhen: sayDay });
    return true;
  }

  // One line for each size of a cache.
  const LINES = ["reachable", "unreadable", "superseded", "foreign-0", "foreign-1", "foreign-2", "foreign-3"];
  const drawLines = (title, say) => (figure, table) => {
    const { names, values } = columnsOf(table);
    if (values[0].length < 2) return false;
    const series = names.slice(1).map((label, at) => ({
      label,
      stroke: colour(LINES[at % LINES.length]),
      width: 2,
      paths: steps(),
      points: { show: false },
      value: saySeries(say),
    }));
    draw(figure, title, values, series, say);
    return true;
  };
  const sayShare = (share) => `${Math.round(share * 100)} %`;

  const charts = {
    trend: drawTrend,
    evictions: drawEvictions,
    found: drawLines("Results found so far, with a daily run", sayShare),
    stored: drawLines("Bytes stored, with a daily run", saySize),
  };

  function drawAll() {
    for (const figure of document.querySelectorAll("figure[data-chart]")) {
      figure.replaceChildren();
      const kind = figure.dataset.chart;
      charts[kind](figure, document.querySelector(`table.${kind}`));
    }
  }

  drawAll();
  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    if (figure.childElementCount) figure.nextElementSibling.open = false;
  }
  document.querySelectorAll("table").forEach((table, number) => {
    if (table.closest("figure") || table.classList.contains("tree") || table.classList.contains("legend")) return;
    makeSortable(table);
    if (table.classList.contains("filter")) makeFilterable(table, number);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  let waiting = 0;
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(drawAll, 150);
  });
})();
