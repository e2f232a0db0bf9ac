"use strict";
// The page of lab/present/attention_page.py: its docstring describes the data.
// `kept` is what the reader chose; `pointed` is laid over it while the pointer is on something.

const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const SOURCES = 6; // rows of the list of sources
const RANKED = 12; // heads in the ranked list
const kept = {
  text: 0, variant: data.first_variant, layer: data.first_head[0], head: data.first_head[1], token: 0, column: null,
};
const pointed = {};
let attention = []; // of the chosen text, one {shares, sources} per variant

// ---- data

async function unpack(text) {
  if (!text) return new Uint8Array();
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function unpackText(text) {
  return Promise.all(text.variants.map(async (variant) => {
    const sources = await unpack(variant.sources);
    return {shares: await unpack(variant.shares), sources: new Uint16Array(sources.buffer)};
  }));
}

const textNow = () => data.texts[kept.text];
const variantNow = () => textNow().variants[kept.variant];
const view = () => ({...kept, ...pointed});

// The shares [T] of a query on all tokens; the first token may be left out and the rest scaled up.
function sharesOf(variant, layer, head, query) {
  const text = textNow();
  const count = text.tokens.length;
  const shares = new Float64Array(count);
  const packed = attention[variant];
  const which = layer * data.heads + head;
  if (text.is_full) {
    const start = which * count * (count + 1) / 2 + query * (query + 1) / 2;
    for (let k = 0; k <= query; k++) shares[k] = packed.shares[start + k] / data.levels;
  } else {
    const start = (which * count + query) * data.kept;
    for (let i = start; i < start + data.kept; i++) {
      shares[packed.sources[i]] = Math.max(shares[packed.sources[i]], packed.shares[i] / data.levels);
    }
  }
  if (element("without-first").checked) {
    const others = 1 - shares[0];
    shares[0] = 0;
    if (others > 0) for (let k = 1; k <= query; k++) shares[k] /= others;
  }
  return shares;
}

function strongest(shares, count) {
  return [...shares.keys()].filter((k) => shares[k] > 0)
    .sort((a, b) => shares[b] - shares[a] || a - b).slice(0, count);
}

// The variant whose numbers are listed beside the chosen one: the first, or the other of two.
function comparedVariant() {
  const count = textNow().variants.length;
  if (kept.variant > 0) return 0;
  return count === 2 ? 1 : null;
}

function statisticOf(variant, key, layer, head) {
  return textNow().variants[variant].statistics[key][layer][head];
}

// ---- numbers and colours

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const headName = (layer, head) => `layer ${layer}, head ${head}`;
const tokenName = (position) => `${position} “${textNow().tokens[position]}”`;

function shown(statistic, value) {
  if (value === null) return "–";
  if (statistic.is_share) return percent(value);
  return value.toFixed(2).replace(/^-(0\.00)$/, "$1"); // rounded to 0 from below, it has no sign
}

let palette = {};
function readPalette() {
  const style = getComputedStyle(document.documentElement);
  const rgb = (name) => {
    const hex = style.getPropertyValue(name).trim();
    return [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
  };
  const names = ["surface", "raised", "share", "negative", "undefined"];
  palette = Object.fromEntries(names.map((name) => [name, rgb(`--${name}`)]));
}

// From surface (0) to full colour (1); lightness changes evenly, so that it is readable in grey.
function mixed(amount, name = "share") {
  return palette.surface.map((from, i) => Math.round(from + (palette[name][i] - from) * amount));
}
const css = (rgb) => `rgb(${rgb.join(" ")})`;
// The square root lets shares of a few per cent be seen beside a first token that takes most.
const amountOf = (share) => Math.sqrt(Math.min(1, share));

// Black or white, whichever has the larger contrast: at least 4.5 : 1 on every colour.
function inkOn(rgb) {
  const linear = rgb.map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  const luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  return luminance > 0.179 ? "black" : "white";
}

function statisticColour(value, range) {
  if (value === null) return css(palette.undefined);
  if (value < 0) return css(mixed(value / range.low, "negative"));
  return css(mixed(range.high > 0 ? value / range.high : 0));
}

// One range for all variants of a text, so that steps of a training can be compared.
function rangeOf(statistic) {
  const values = textNow().variants.flatMap((variant) => variant.statistics[statistic.key].flat())
    .filter((value) => value !== null);
  return {
    low: Math.min(0, ...values),
    high: Math.max(statistic.is_share ? 1 : 0, ...values),
    most: Math.max(...values),
    least: Math.min(...values),
  };
}

// ---- tokens

function buildTokens() {
  const box = element("tokens");
  box.replaceChildren();
  box.classList.toggle("long", !textNow().is_full);
  textNow().tokens.forEach((text, position) => {
    const token = document.createElement("span");
    token.className = "token";
    token.textContent = text;
    token.setAttribute("role", "option");
    token.dataset.position = position;
    token.addEventListener("pointerenter", (event) => {
      if (event.pointerType === "mouse") point({token: position, column: null});
    });
    token.addEventListener("pointerleave", () => point({}));
    token.addEventListener("click", () => keep({token: position, column: null}));
    token.addEventListener("focus", () => keep({token: position, column: null}));
    box.append(token);
    const next = textNow().tokens[position + 1] ?? "";
    if (text.includes("⏎") && !next.startsWith("⏎")) {
      const lineBreak = document.createElement("span");
      lineBreak.className = "break";
      box.append(lineBreak);
    }
  });
}

const tokenElements = () => [...element("tokens").querySelectorAll(".token")];

function drawTokens(now, shares) {
  tokenElements().forEach((token, position) => {
    const background = shares[position] > 0 ? mixed(amountOf(shares[position])) : null;
    const isActive = position === now.token;
    token.style.backgroundColor = background ? css(background) : "";
    token.style.color = background ? inkOn(background) : "";
    token.classList.toggle("later", position > now.token);
    token.classList.toggle("active", isActive);
    token.setAttribute("aria-selected", String(isActive));
    token.setAttribute("aria-label", `token ${tokenName(position)}, ${percent(shares[position])}`);
    token.tabIndex = position === kept.token ? 0 : -1;
  });
}

// The token above or below: of the nearest line, the one whose middle is nearest.
function verticalNeighbour(from, direction) {
  const boxes = tokenElements().map((token) => token.getBoundingClientRect());
  const start = boxes[from];
  const middle = (box) => (box.left + box.right) / 2;
  const others = boxes.map((box, position) => ({box, position}))
    .filter(({box}) => (box.top - start.top) * direction > 4);
  if (!others.length) return from;
  const line = Math.min(...others.map(({box}) => Math.abs(box.top - start.top)));
  const onLine = others.filter(({box}) => Math.abs(Math.abs(box.top - start.top) - line) < 4);
  onLine.sort((a, b) => Math.abs(middle(a.box) - middle(start)) - Math.abs(middle(b.box) - middle(start)));
  return onLine[0].position;
}

element("tokens").addEventListener("keydown", (event) => {
  const last = textNow().tokens.length - 1;
  const targets = {
    ArrowLeft: () => Math.max(0, kept.token - 1),
    ArrowRight: () => Math.min(last, kept.token + 1),
    ArrowUp: () => verticalNeighbour(kept.token, -1),
    ArrowDown: () => verticalNeighbour(kept.token, 1),
    Home: () => 0,
    End: () => last,
  };
  if (!targets[event.key]) return;
  event.preventDefault();
  tokenElements()[targets[event.key]()].focus();
});

// ---- sources of the token

function cell(kind, text, name = "td") {
  const node = document.createElement(name);
  node.className = kind;
  node.textContent = text;
  return node;
}

function drawSources(now, shares) {
  const compared = comparedVariant();
  const others = compared === null ? null : sharesOf(compared, now.layer, now.head, now.token);
  element("focus-title").textContent =
    `Token ${tokenName(now.token)}, ${headName(now.layer, now.head)}, looks at`;

  const header = document.createElement("tr");
  header.append(cell("", "token", "th"), cell("", "", "th"), cell("number", variantNow().label || "share", "th"));
  if (others) header.append(cell("number", textNow().variants[compared].label, "th"));
  element("sources").tHead.replaceChildren(header);

  const chosen = strongest(shares, SOURCES);
  element("sources").tBodies[0].replaceChildren(...chosen.map((position) => {
    const row = document.createElement("tr");
    const source = cell("source", "");
    source.append(cell("", String(position), "span"), textNow().tokens[position]);
    const bar = cell("bar", "");
    bar.append(document.createElement("div"));
    bar.firstChild.style.width = `${100 * shares[position]}%`;
    row.append(source, bar, cell("number share", percent(shares[position])));
    if (others) row.append(cell("number compared", percent(others[position])));
    return row;
  }));
  const sum = chosen.reduce((total, position) => total + shares[position], 0);
  const more = now.token + 1 - chosen.length;
  const scaled = element("without-first").checked ? " Shares without the first token, scaled to 100 %." : "";
  element("rest").textContent =
    (more > 0 ? `All other tokens up to this one (${more}): ${percent(Math.max(0, 1 - sum))}.` : "") + scaled;
}

// ---- map of the head

function drawMap(now) {
  const count = textNow().tokens.length;
  const canvas = element("map");
  canvas.width = count;
  canvas.height = count;
  const context = canvas.getContext("2d");
  const image = context.createImageData(count, count);
  for (let query = 0; query < count; query++) {
    const shares = sharesOf(kept.variant, now.layer, now.head, query);
    for (let k = 0; k < count; k++) {
      const rgb = k > query ? palette.raised : mixed(amountOf(shares[k]));
      image.data.set([...rgb, 255], 4 * (query * count + k));
    }
  }
  context.putImageData(image, 0, 0);
  element("map-title").textContent = `Map of ${headName(now.layer, now.head)}`;
  drawHeadStatistics(now);
}

function drawHeadStatistics(now) {
  const compared = comparedVariant();
  const header = document.createElement("tr");
  header.append(cell("", "on this text", "th"), cell("number", variantNow().label, "th"));
  if (compared !== null) header.append(cell("number", textNow().variants[compared].label, "th"));
  element("head-statistics").tHead.replaceChildren(header);
  element("head-statistics").tBodies[0].replaceChildren(...data.statistics.map((statistic) => {
    const row = document.createElement("tr");
    row.title = statistic.description;
    const valueOf = (variant) => shown(statistic, statisticOf(variant, statistic.key, now.layer, now.head));
    row.append(cell("", statistic.label), cell("number", valueOf(kept.variant)));
    if (compared !== null) row.append(cell("number", valueOf(compared)));
    return row;
  }));
}

function drawMarks(now, shares) {
  const count = textNow().tokens.length;
  const unit = 100 / count;
  Object.assign(element("row-mark").style, {
    left: "0", width: `${unit * (now.token + 1)}%`, top: `${unit * now.token}%`, height: `${unit}%`,
  });
  const mark = element("cell-mark");
  mark.hidden = now.column === null;
  if (now.column === null) {
    const first = strongest(shares, 1)[0];
    element("readout").textContent = first === undefined
      ? `Token ${tokenName(now.token)} has nothing to look at.`
      : `Token ${tokenName(now.token)} looks most at ${tokenName(first)}: ${percent(shares[first])}.`;
    return;
  }
  Object.assign(mark.style, {
    left: `${unit * now.column}%`, width: `${unit}%`, top: `${unit * now.token}%`, height: `${unit}%`,
  });
  const isStored = textNow().is_full || shares[now.column] > 0;
  const share = isStored ? percent(shares[now.column]) : `not among its ${data.kept} strongest sources`;
  element("readout").textContent = `Token ${tokenName(now.token)} looks at ${tokenName(now.column)}: ${share}.`;
}

function mapCell(event) {
  const box = element("map").getBoundingClientRect();
  const count = textNow().tokens.length;
  const at = (offset, length) => Math.min(count - 1, Math.max(0, Math.floor(offset / length * count)));
  const token = at(event.clientY - box.top, box.height);
  return {token, column: Math.min(token, at(event.clientX - box.left, box.width))};
}

element("map-frame").addEventListener("pointermove", (event) => {
  if (event.pointerType === "mouse") point(mapCell(event));
});
element("map-frame").addEventListener("pointerleave", () => point({}));
element("map-frame").addEventListener("click", (event) => keep(mapCell(event)));
element("map-frame").addEventListener("keydown", (event) => {
  const moves = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
  if (!moves[event.key]) return;
  event.preventDefault();
  const [down, right] = moves[event.key];
  const token = Math.min(textNow().tokens.length - 1, Math.max(0, kept.token + down));
  const column = Math.min(token, Math.max(0, (kept.column ?? kept.token) + right));
  keep({token, column});
});

// ---- all heads

const statisticNow = () => data.statistics[Number(element("statistic").value)];

function buildGrid() {
  const grid = element("grid");
  grid.style.gridTemplateColumns = `1.75rem repeat(${data.heads}, minmax(.75rem, 1fr))`;
  const header = document.createElement("div");
  header.setAttribute("role", "row");
  header.append(cell("name", "", "div"));
  header.firstChild.setAttribute("role", "columnheader");
  for (let head = 0; head < data.heads; head++) {
    const name = cell("name", String(head), "div");
    name.setAttribute("role", "columnheader");
    header.append(name);
  }
  grid.append(header);
  for (let layer = 0; layer < data.layers; layer++) {
    const row = document.createElement("div");
    row.setAttribute("role", "row");
    const name = cell("name", String(layer), "div");
    name.setAttribute("role", "rowheader");
    row.append(name);
    for (let head = 0; head < data.heads; head++) {
      const box = document.createElement("div");
      box.setAttribute("role", "gridcell");
      listenToHead(box, layer, head);
      row.append(box);
    }
    grid.append(row);
  }
}

function listenToHead(node, layer, head) {
  node.addEventListener("pointerenter", (event) => {
    if (event.pointerType === "mouse") point({layer, head});
  });
  node.addEventListener("pointerleave", () => point({}));
  node.addEventListener("click", () => keep({layer, head}));
}

const gridCells = () => [...element("grid").querySelectorAll("[role=gridcell]")];

element("grid").addEventListener("keydown", (event) => {
  const moves = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
  if (!moves[event.key]) return;
  event.preventDefault();
  const [down, right] = moves[event.key];
  const layer = Math.min(data.layers - 1, Math.max(0, kept.layer + down));
  const head = Math.min(data.heads - 1, Math.max(0, kept.head + right));
  keep({layer, head});
  gridCells()[layer * data.heads + head].focus();
});

// The heads that pass the filter, sorted; heads without the statistic never pass.
function rankedHeads(statistic) {
  const isHighFirst = element("order").value === "high";
  const limit = thresholdValue(statistic);
  const heads = [];
  for (let layer = 0; layer < data.layers; layer++) {
    for (let head = 0; head < data.heads; head++) {
      const value = statisticOf(kept.variant, statistic.key, layer, head);
      if (value !== null && (isHighFirst ? value >= limit : value <= limit)) heads.push({layer, head, value});
    }
  }
  const sign = isHighFirst ? -1 : 1;
  return heads.sort((a, b) => sign * (a.value - b.value) || a.layer - b.layer || a.head - b.head);
}

function thresholdValue(statistic) {
  const range = rangeOf(statistic);
  const place = Number(element("threshold").value) / 100;
  // A little beyond the ends, so that rounding leaves no head out there.
  const slack = 1e-9 + 1e-9 * Math.abs(range.most);
  const value = range.least + (range.most - range.least) * place;
  return element("order").value === "high" ? value - slack : value + slack;
}

function drawHeads() {
  const statistic = statisticNow();
  const range = rangeOf(statistic);
  const ranked = rankedHeads(statistic);
  const passing = new Set(ranked.map(({layer, head}) => layer * data.heads + head));
  const isHighFirst = element("order").value === "high";
  const bound = shown(statistic, thresholdValue(statistic));
  element("threshold-label").textContent = isHighFirst ? `At least ${bound}` : `At most ${bound}`;
  element("statistic-description").textContent = `${statistic.label}: ${statistic.description}.`;
  const keptValue = shown(statistic, statisticOf(kept.variant, statistic.key, kept.layer, kept.head));
  element("head-line").firstChild.textContent =
    `Chosen: ${headName(kept.layer, kept.head)}, ${statistic.label} ${keptValue}.`;
  gridCells().forEach((box, index) => {
    const layer = Math.floor(index / data.heads);
    const head = index % data.heads;
    const value = statisticOf(kept.variant, statistic.key, layer, head);
    const isKept = layer === kept.layer && head === kept.head;
    box.style.backgroundColor = statisticColour(value, range);
    box.classList.toggle("filtered", !passing.has(index));
    box.setAttribute("aria-selected", String(isKept));
    box.setAttribute("aria-label", `${headName(layer, head)}: ${statistic.label} ${shown(statistic, value)}`);
    box.title = box.getAttribute("aria-label");
    box.tabIndex = isKept ? 0 : -1;
  });

  const total = data.layers * data.heads;
  element("ranking-title").textContent =
    `By ${statistic.label}: ${ranked.length} of ${total} heads` + (ranked.length > RANKED ? `, the first ${RANKED}` : "");
  const farthest = Math.max(Math.abs(range.low), range.high) || 1;
  element("ranking").replaceChildren(...ranked.slice(0, RANKED).map(({layer, head, value}) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    const meter = cell("meter", "", "span");
    meter.style.width = `${100 * Math.abs(value) / farthest}%`;
    button.append(cell("", `L${layer} H${head}`, "span"), meter, cell("", shown(statistic, value), "span"));
    button.setAttribute("aria-label", `${headName(layer, head)}: ${shown(statistic, value)}`);
    button.setAttribute("aria-pressed", String(layer === kept.layer && head === kept.head));
    listenToHead(button, layer, head);
    item.append(button);
    return item;
  }));
}

function markPointedHead() {
  gridCells().forEach((box, index) => {
    box.classList.toggle("pointed", "head" in pointed && index === pointed.layer * data.heads + pointed.head);
  });
}

// ---- what changes what

let drawnMap = "";
function draw() {
  const now = view();
  const shares = sharesOf(kept.variant, now.layer, now.head, now.token);
  drawTokens(now, shares);
  drawSources(now, shares);
  const map = [kept.text, kept.variant, now.layer, now.head, element("without-first").checked].join();
  if (map !== drawnMap) drawMap(now);
  drawnMap = map;
  drawMarks(now, shares);
  markPointedHead();
  element("layer").value = String(now.layer);
  element("head").value = String(now.head);
}

function point(change) {
  for (const key of Object.keys(pointed)) delete pointed[key];
  Object.assign(pointed, change);
  draw();
}

function keep(change) {
  for (const key of Object.keys(pointed)) delete pointed[key];
  const before = `${kept.layer},${kept.head}`;
  Object.assign(kept, change);
  draw();
  if (`${kept.layer},${kept.head}` !== before) drawHeads();
  if ("token" in change) showToken();
  element("status").textContent = element("readout").textContent;
}

// Scroll the box of a long text, never the page, to the chosen token.
function showToken() {
  const box = element("tokens");
  if (textNow().is_full) return;
  const token = tokenElements()[kept.token];
  const top = token.offsetTop - box.offsetTop;
  const isSeen = top >= box.scrollTop && top + token.offsetHeight <= box.scrollTop + box.clientHeight;
  if (!isSeen) box.scrollTop = top - box.clientHeight / 2;
}

function drawAll() {
  readPalette();
  drawnMap = "";
  drawLegend();
  draw();
  drawHeads();
}

function drawLegend() {
  element("legend").replaceChildren(...[0, 0.01, 0.05, 0.25, 0.5, 1].map((share) => {
    const item = document.createElement("span");
    const swatch = document.createElement("i");
    swatch.style.backgroundColor = css(mixed(amountOf(share)));
    item.append(swatch, `${100 * share} %`);
    return item;
  }));
}

async function chooseText(index) {
  const text = data.texts[index];
  const unpacked = await unpackText(text);
  if (Number(element("text").value) !== index) return; // another one was chosen meanwhile
  attention = unpacked;
  kept.text = index;
  kept.variant = Math.min(kept.variant, text.variants.length - 1);
  kept.token = text.tokens.length - 1;
  kept.column = null;
  for (const key of Object.keys(pointed)) delete pointed[key];
  element("note").textContent = text.note;
  buildVariants();
  buildTokens();
  element("resolution").textContent =
    `Shares are stored in steps of ${(100 / data.levels).toFixed(1)} %` +
    (text.is_full ? "." : `, and of each token only the ${data.kept} strongest sources.`) +
    " Colours follow the square root of a share. An attention share says where a head reads, not what" +
    " it does with it: whether a head matters is seen by switching it off.";
  drawAll();
  showToken();
}

function chooseVariant(index) {
  kept.variant = index;
  nameFrame();
  drawAll();
}

function buildVariants() {
  const variants = textNow().variants;
  const switcher = element("variant-choices");
  element("variants").hidden = variants.length !== 2;
  element("frames").hidden = variants.length < 3;
  switcher.replaceChildren();
  if (variants.length === 2) {
    variants.forEach((variant, index) => {
      const label = document.createElement("label");
      const input = document.createElement("input");
      input.type = "radio";
      input.name = "variant";
      input.checked = index === kept.variant;
      input.addEventListener("change", () => chooseVariant(index));
      label.append(input, variant.label);
      switcher.append(label);
    });
  }
  element("frame").max = String(variants.length - 1);
  element("frame").value = String(kept.variant);
  nameFrame();
}

function nameFrame() {
  element("frame-label").textContent = variantNow().label;
  element("frame").setAttribute("aria-valuetext", variantNow().label);
}

function fill(select, labels) {
  select.replaceChildren(...labels.map((label, index) => new Option(label, String(index))));
}

function start() {
  element("title").textContent = data.title;
  element("introduction").textContent = data.introduction;
  fill(element("text"), data.texts.map((text) => text.label));
  fill(element("layer"), [...Array(data.layers).keys()].map(String));
  fill(element("head"), [...Array(data.heads).keys()].map(String));
  fill(element("statistic"), data.statistics.map((statistic) => statistic.label));
  element("threshold").value = "0";
  buildGrid();

  element("text").addEventListener("change", () => chooseText(Number(element("text").value)));
  element("layer").addEventListener("change", () => keep({layer: Number(element("layer").value)}));
  element("head").addEventListener("change", () => keep({head: Number(element("head").value)}));
  element("frame").addEventListener("input", () => chooseVariant(Number(element("frame").value)));
  element("without-first").addEventListener("change", draw);
  element("statistic").addEventListener("change", drawHeads);
  element("threshold").addEventListener("input", drawHeads);
  element("order").addEventListener("change", () => {
    element("threshold").value = element("order").value === "high" ? "0" : "100";
    drawHeads();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  return chooseText(0);
}

start().catch((error) => {
  element("problem").hidden = false;
  element("problem").textContent = `The page could not be drawn (${error.message}). It needs a browser of 2023 or later.`;
});
