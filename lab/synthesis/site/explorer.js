"use strict";
// The page of lab/synthesis/site/explorer.py, whose `document` describes the data.
// `choice` is what the reader chose; the fragment of the address names the same, as a trial's name
// without its seed (#r16-a32-lr0.001-b8-s20-n160) or with it (…-seed1).

const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const NOT_MEASURED = "not measured";
const NAME = /^r(\d+)-(a|rsa)([\d.]+)-lr(\d[\d.]*(?:e-\d+)?)-b(\d+)-s(\d+)-n(\d+)(-shuffled)?(?:-seed(\d+))?$/;

// ---- what can be chosen: a setting is read off a trial's name

function settingsOf(name) {
  const parts = NAME.exec(name);
  if (!parts) return null;
  const [, rank, scale, alpha, rate, batch, steps, examples, shuffled, seed] = parts;
  return {
    rate, rank, alpha: `${scale}${alpha}`, training: `b${batch}-s${steps}-n${examples}`,
    answers: shuffled ? "shuffled" : "true", seed: seed ?? "all",
  };
}

const cellOf = (choice) =>
  `r${choice.rank}-${choice.alpha}-lr${choice.rate}-${choice.training}` +
  (choice.answers === "shuffled" ? "-shuffled" : "");

const trialsOf = (choice) => data.trials.filter((trial) => trial.cell === cellOf(choice));
const everySetting = data.trials.map((trial) => settingsOf(trial.name));

const CHOICES = [
  ["rate", "Learning rate", (value) => value],
  ["rank", "Rank", (value) => value],
  ["alpha", "α", (value) => (value.startsWith("rs") ? `${value.slice(3)}, rsLoRA` : value.slice(1))],
  ["training", "Training", (value) => {
    const [, batch, steps, examples] = /b(\d+)-s(\d+)-n(\d+)/.exec(value);
    return `${steps} steps of ${batch}, ${examples} examples`;
  }],
  ["answers", "Answers", (value) => value],
  ["seed", "Seed", (value) => value],
];

let choice = {};
let kind = "all"; // of linear layers, whose spectrum is shown

function valuesOf(key) {
  const values = [...new Set(everySetting.map((settings) => settings[key]))];
  values.sort((a, b) => (parseFloat(a.replace(/^\D+/, "")) - parseFloat(b.replace(/^\D+/, ""))) || (a < b ? -1 : 1));
  return key === "seed" ? ["all", ...values] : values;
}

// A cell with two seeds or more, true answers, and the lowest mean held-out loss.
function bestCell() {
  let best = null;
  for (const settings of everySetting) {
    const cell = trialsOf(settings);
    const loss = mean(cell.map((trial) => trial.held_out));
    const counts = cell.length > 1 && settings.answers === "true";
    if (counts && (best === null || loss < best.loss)) best = {loss, settings};
  }
  return {...(best ? best.settings : everySetting[0]), seed: "all"};
}

// ---- numbers

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const shown = (value, digits = 4) =>
  (value === null || value === undefined ? NOT_MEASURED : String(Number(value.toPrecision(digits))));

// The mean and the range over trials of a column of numbers, as far as all of them have one.
function spread(columns) {
  const length = Math.min(...columns.map((column) => column.length));
  return [...Array(length).keys()].map((i) => {
    const values = columns.map((column) => column[i]);
    return {mean: mean(values), low: Math.min(...values), high: Math.max(...values)};
  });
}

// ---- nodes

function node(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function svgNode(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function table(label, columns, rows) {
  const head = node("tr", {}, ...columns.map((column) => node("th", {scope: "col"}, column)));
  const body = rows.map((row) => node("tr", {}, ...row.map((cell) => node("td", {}, cell))));
  return node("div", {class: "scroll", role: "region", tabindex: "0", "aria-label": label},
    node("table", {}, node("thead", {}, head), node("tbody", {}, ...body)));
}

// ---- charts: lines and points on two axes, each with its numbers as a table

const HEIGHT = 280;
const EDGE = {left: 52, right: 14, top: 10, bottom: 42};

function scaleOf(values, isLog, from, to) {
  const change = isLog ? Math.log10 : (value) => value;
  let low = Math.min(...values.map(change));
  let high = Math.max(...values.map(change));
  const room = (high - low || 1) * 0.05;
  low -= room;
  high += room;
  const place = (value) => from + (change(value) - low) / (high - low) * (to - from);
  return {place, ticks: isLog ? logTicks(low, high) : linearTicks(low, high)};
}

function linearTicks(low, high) {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const ticks = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) ticks.push(i * step);
  return ticks;
}

function logTicks(low, high) {
  const factors = high - low > 1.5 ? [1] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power++) {
    for (const factor of factors) ticks.push(factor * 10 ** power);
  }
  return ticks.filter((tick) => Math.log10(tick) >= low && Math.log10(tick) <= high);
}

const pathOf = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

// lines: {label, css, points: [x, y]}; marks: {label, css, x, y, href}; band: {label, points: [x, low, high]}
function chart({title, caption, xLabel, yLabel, lines, marks = [], band = null, xLog = false, yLog = false}) {
  const width = Math.max(300, Math.min(720, element("details").clientWidth || 640));
  const everyPoint = [
    ...lines.flatMap((line) => line.points), ...marks.map((mark) => [mark.x, mark.y]),
    ...(band ? band.points.flatMap(([x, low, high]) => [[x, low], [x, high]]) : []),
  ];
  const x = scaleOf(everyPoint.map((point) => point[0]), xLog, EDGE.left, width - EDGE.right);
  const y = scaleOf(everyPoint.map((point) => point[1]), yLog, HEIGHT - EDGE.bottom, EDGE.top);
  const at = ([a, b]) => [x.place(a), y.place(b)];
  const drawing = svgNode("svg", {viewBox: `0 0 ${width} ${HEIGHT}`, role: "group", "aria-label": title});

  // 1. Axes.
  for (const tick of y.ticks) {
    const height = y.place(tick);
    drawing.append(svgNode("line", {class: "rule", x1: EDGE.left, x2: width - EDGE.right, y1: height, y2: height}));
    drawing.append(svgNode("text", {class: "tick", x: EDGE.left - 6, y: height + 4, "text-anchor": "end"}, shown(tick, 3)));
  }
  for (const tick of x.ticks) {
    const place = x.place(tick);
    drawing.append(svgNode("text", {class: "tick", x: place, y: HEIGHT - EDGE.bottom + 16, "text-anchor": "middle"}, shown(tick, 3)));
  }
  const middle = (EDGE.top + HEIGHT - EDGE.bottom) / 2;
  drawing.append(svgNode("text", {class: "name", x: (EDGE.left + width) / 2, y: HEIGHT - 6, "text-anchor": "middle"}, xLabel));
  drawing.append(svgNode("text", {class: "name", x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})`}, yLabel));

  // 2. The band between the seeds, then lines, then points, each a link to its trial.
  if (band) {
    const upper = band.points.map(([a, , high]) => at([a, high]));
    const lower = band.points.map(([a, low]) => at([a, low])).reverse();
    drawing.append(svgNode("path", {class: "band", d: `${pathOf([...upper, ...lower])}Z`}));
  }
  for (const line of lines) drawing.append(svgNode("path", {class: `line ${line.css}`, d: pathOf(line.points.map(at))}));
  for (const mark of marks) {
    const [cx, cy] = at([mark.x, mark.y]);
    const spot = svgNode("circle", {class: `mark ${mark.css}`, cx, cy, r: 5});
    const name = `${mark.label}: ${shown(mark.y)}`;
    drawing.append(svgNode("a", {href: mark.href, "aria-label": name}, svgNode("title", {}, name), spot));
  }

  // 3. Legend, caption, numbers.
  const legend = node("p", {class: "legend"});
  const entries = [...lines.map((line) => [line.css, line.label]), ...(band ? [["band", band.label]] : [])];
  for (const [css, label] of entries) {
    const swatch = svgNode("svg", {viewBox: "0 0 24 10", width: 24, height: 10, "aria-hidden": "true"});
    swatch.append(css === "band" ? svgNode("rect", {class: "band", width: 24, height: 10}) : svgNode("path", {class: `line ${css}`, d: "M0 5L24 5"}));
    legend.append(node("span", {}, swatch, ` ${label}`));
  }
  return node("figure", {}, node("h3", {}, title), legend, drawing, node("figcaption", {}, caption),
    node("details", {}, node("summary", {}, "The numbers of this figure"), numbersOf(title, xLabel, lines, marks)));
}

function numbersOf(title, xLabel, lines, marks) {
  const columns = lines.filter((line) => line.points.length);
  const places = [...new Set(columns.flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b);
  const rows = places.map((place) => [
    shown(place, 3), ...columns.map((line) => {
      const point = line.points.find(([x]) => x === place);
      return point ? shown(point[1]) : "–";
    }),
  ]);
  const listed = table(title, [xLabel, ...columns.map((line) => line.label)], rows);
  const points = marks.map((mark) => [mark.label, shown(mark.x, 3), shown(mark.y)]);
  return node("div", {}, listed, points.length ? table(`${title}: points`, ["point", xLabel, "value"], points) : "");
}

// ---- the chosen cell

const css = (trial) => `seed-${trial.seed % 3}`;

function lossChart(cell, chosen) {
  const bands = spread(cell.map((trial) => trial.losses));
  const lines = chosen.map((trial) => ({
    label: `seed ${trial.seed}`, css: css(trial), points: trial.losses.map((loss, step) => [step + 1, loss]),
  }));
  if (chosen.length > 1) lines.push({label: "mean", css: "mean", points: bands.map((at, step) => [step + 1, at.mean])});
  for (const trial of chosen) {
    if (trial.curve.length) lines.push({label: `held-out part, seed ${trial.seed}`, css: `${css(trial)} curve`, points: trial.curve});
  }
  const marks = chosen.map((trial) => ({
    label: `held-out loss of seed ${trial.seed}`, css: css(trial), x: trial.steps, y: trial.held_out, href: `#trial-${trial.name}`,
  }));
  const band = cell.length > 1 ? {
    label: `range of ${cell.length} seeds`, points: bands.map((at, step) => [step + 1, at.low, at.high]),
  } : null;
  return chart({
    title: "Loss in training", xLabel: "optimizer step", yLabel: "nats/token", lines, marks, band,
    caption: "Lines: the loss of each step's batch before its update. Points at the end: the loss on all held-out examples.",
  });
}

function rateChart(now, chosen) {
  const row = data.trials.filter((trial) => {
    const settings = settingsOf(trial.name);
    return ["rank", "alpha", "training", "answers"].every((key) => settings[key] === now[key]);
  });
  const rates = [...new Set(row.map((trial) => trial.rate))].sort((a, b) => a - b);
  const at = rates.map((rate) => row.filter((trial) => trial.rate === rate).map((trial) => trial.held_out));
  const lines = [
    {label: "mean over seeds", css: "mean", points: rates.map((rate, i) => [rate, mean(at[i])])},
    {label: "base without an adapter", css: "base", points: rates.map((rate) => [rate, data.base.held_out])},
  ];
  const marks = row.map((trial) => ({
    label: `rate ${trial.rate}, seed ${trial.seed}`, css: css(trial) + (chosen.includes(trial) ? "" : " other"),
    x: trial.rate, y: trial.held_out, href: `#${trial.name}`,
  }));
  const band = rates.length > 1 ? {
    label: "range of the seeds", points: rates.map((rate, i) => [rate, Math.min(...at[i]), Math.max(...at[i])]),
  } : null;
  return chart({
    title: "Held-out loss at every rate of this row", xLabel: "learning rate", yLabel: "nats/token", xLog: true, lines, marks, band,
    caption: `Measured at ${rates.length} of ${valuesOf("rate").length} rates; the others were not. Each point is a trial and a link to it.`,
  });
}

function spectrumOf(trial) {
  const kinds = kind === "all" ? Object.keys(trial.spectra) : [kind];
  return spread(kinds.map((name) => trial.spectra[name])).map((at) => at.mean);
}

function spectrumChart(cell, chosen) {
  const lines = chosen.map((trial) => ({
    label: `seed ${trial.seed}`, css: css(trial), points: spectrumOf(trial).map((value, i) => [i + 1, value]),
  }));
  const made = chart({
    title: "Singular values of the update", xLabel: "number", yLabel: "singular value", yLog: true, lines,
    caption: "ΔW = s·B·A of each layer; means over the layers. A line that falls quickly: few directions hold the update.",
  });
  const names = ["all", ...Object.keys(cell[0].spectra)];
  const select = node("select", {id: "kind"}, ...names.map((name) => new Option(name, name, false, name === kind)));
  select.addEventListener("change", () => {
    kind = select.value;
    draw();
    element("kind").focus();
  });
  made.querySelector("h3").after(node("label", {class: "kind"}, "Linear layers ", select));
  return made;
}

function trialTable(chosen) {
  const rows = chosen.map((trial) => [
    String(trial.seed), shown(trial.held_out), shown(trial.accuracy, 3), shown(trial.stable_rank, 3), shown(trial.norm, 3),
    trial.forgetting ? `${shown(trial.forgetting[0], 3)} ± ${shown(trial.forgetting[1], 2)}` : NOT_MEASURED,
    trial.forgetting ? shown(trial.forgetting[2], 3) : NOT_MEASURED,
    node("a", {href: `#trial-${trial.name}`}, node("code", {}, trial.identity.slice(0, 12))),
  ]);
  const columns = [
    "seed", "held-out loss (nats/token)", "token accuracy", "stable rank", "‖ΔW‖", "forgetting (nats/byte)",
    "KL from the base (nats/token)", "digest",
  ];
  return node("div", {id: "chosen-trials"}, node("h3", {}, "Trials"), table("The chosen trials", columns, rows));
}

function answerList(chosen) {
  const made = node("div", {id: "answers"}, node("h3", {}, "Answers"),
    node("p", {class: "hint"}, "Greedy answers to held-out prompts; an answer ends where the model ends its turn, or is cut."));
  data.prompts.forEach(([prompt, expected], i) => {
    const rows = [
      ["documentation", expected], ["base", data.base.answers[i]],
      ...chosen.map((trial) => [`seed ${trial.seed}`, trial.answers[i]]),
    ];
    const list = node("dl", {});
    for (const [who, words] of rows) list.append(node("dt", {}, who), node("dd", {}, words || "(nothing)"));
    made.append(node("article", {class: "card"}, node("p", {}, node("code", {}, prompt)), list));
  });
  return made;
}

// Cells that were measured and differ from the choice in one thing.
function neighbours(now) {
  const keys = CHOICES.map(([key]) => key).filter((key) => key !== "seed");
  const near = everySetting.filter((settings) => keys.filter((key) => settings[key] !== now[key]).length === 1);
  return [...new Set(near.map(cellOf))];
}

function draw() {
  const cell = trialsOf(choice);
  const chosen = cell.filter((trial) => choice.seed === "all" || String(trial.seed) === choice.seed);
  const isMeasured = chosen.length > 0;
  fillChoices();
  element("chosen").hidden = false;
  element("chosen-title").textContent = isMeasured ? `Chosen: ${describe(choice)}` : `Not measured: ${describe(choice)}`;
  element("unmeasured").hidden = isMeasured;
  const details = element("details");
  details.replaceChildren();
  if (isMeasured) {
    details.append(lossChart(cell, chosen), rateChart(choice, chosen), spectrumChart(cell, chosen), trialTable(chosen), answerList(chosen));
  } else {
    const near = neighbours(choice);
    element("unmeasured").replaceChildren(
      "No trial ran with this choice, and nothing is drawn in its place. ",
      near.length ? "Measured, with one thing changed: " : "Choose a cell in the grid.",
      ...near.flatMap((name, i) => [i ? ", " : "", node("a", {href: `#${name}`}, name)]),
    );
  }
  for (const link of document.querySelectorAll("#grid a")) {
    if (link.dataset.cell === cellOf(choice)) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

function describe(now) {
  const words = Object.fromEntries(CHOICES.map(([key, , show]) => [key, show(now[key])]));
  const seed = now.seed === "all" ? "all seeds" : `seed ${now.seed}`;
  const answers = now.answers === "shuffled" ? ", shuffled answers" : "";
  return `rate ${words.rate}, rank ${words.rank}, α ${words.alpha}, ${words.training}${answers}, ${seed}`;
}

// ---- choosing

function fillChoices() {
  for (const [key, , show] of CHOICES) {
    const select = element(`choose-${key}`);
    select.replaceChildren(...valuesOf(key).map((value) => {
      const other = {...choice, [key]: value};
      const isMeasured = trialsOf(other).some((trial) => other.seed === "all" || String(trial.seed) === other.seed);
      return new Option(isMeasured ? show(value) : `${show(value)} (${NOT_MEASURED})`, value, false, value === choice[key]);
    }));
  }
}

function buildChoices() {
  for (const [key, label] of CHOICES) {
    const select = node("select", {id: `choose-${key}`});
    select.addEventListener("change", () => {
      choice = {...choice, [key]: select.value};
      const suffix = choice.seed === "all" ? "" : `-seed${choice.seed}`;
      history.replaceState(null, "", `#${cellOf(choice)}${suffix}`);
      draw();
      element("status").textContent = element("chosen-title").textContent;
    });
    element("choices").append(node("label", {}, label, select));
  }
  element("choices").addEventListener("submit", (event) => event.preventDefault());
}

// Follow the fragment; one that names no setting of this page changes nothing, none is the best cell.
function follow() {
  const name = location.hash.slice(1);
  if (!name) {
    choice = bestCell();
    draw();
    return;
  }
  const settings = settingsOf(name);
  if (settings && CHOICES.every(([key]) => valuesOf(key).includes(settings[key]))) {
    choice = settings;
    draw();
    element("chosen-title").focus({preventScroll: true});
    element("chosen").scrollIntoView();
  } else if (name.startsWith("trial-") && element(name)) {
    element(name).closest("details").open = true;
    element(name).scrollIntoView({block: "center"});
  }
}

function start() {
  // Without a script a link of the grid leads to the row of its cell; here it opens the cell.
  for (const row of document.querySelectorAll("#cells tr[id]")) row.removeAttribute("id");
  buildChoices();
  choice = bestCell();
  draw();
  if (location.hash) follow();
  addEventListener("hashchange", follow);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone's bars change the height alone
    width = innerWidth;
    draw();
  });
}

start();
