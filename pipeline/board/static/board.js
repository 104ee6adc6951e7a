// What pages do beyond HTML: they follow what changes, copy commands, and select months.
"use strict";

const texts = document.getElementById("texts").dataset;
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const parsed = (html) => new DOMParser().parseFromString(html, "text/html");

// --- Copy buttons.

async function copy(button) {
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
  } catch { // Only pages of https or of this machine have a clipboard.
    const area = document.body.appendChild(document.createElement("textarea"));
    area.value = button.dataset.copy;
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  const label = button.textContent;
  document.getElementById("said").textContent = button.textContent = texts.copied;
  if (label !== texts.copied) setTimeout(() => { button.textContent = label; }, 1500);
}

// --- Parts of a page that are loaded when they are opened.

async function load(details) {
  const target = details.querySelector(".loaded") ?? details.appendChild(document.createElement("div"));
  if (target.ariaBusy || target.childElementCount) return;
  target.className = "loaded";
  target.ariaBusy = "true";
  target.textContent = texts.loading;
  try {
    const page = parsed(await (await fetch(details.dataset.load)).text());
    target.replaceChildren(...(page.getElementById("main") ?? page.body).childNodes);
  } catch {
    target.textContent = texts.failed;
  }
  target.ariaBusy = null;
}

// --- The page is fetched again: what the user did with it stays.

const nameOf = (details) => details.id || details.dataset.load || details.querySelector("summary")?.textContent;
let timer = 0, isFetching = false;
const soon = (wait) => { timer ||= setTimeout(refresh, wait); };

async function refresh() {
  timer = 0;
  if (isFetching) { soon(500); return; }
  isFetching = true;
  try {
    const answer = await fetch(location.href);
    if (answer.ok) replace(parsed(await answer.text()));
  } catch { /* The notice already says that there is no connection. */ }
  isFetching = false;
}

function replace(page) {
  const main = document.getElementById("main"), focus = document.activeElement;
  const open = new Map(all("details", main).map((each) => [nameOf(each), each.open]));
  const boxes = all(".scroll", main).map((each) => [each.scrollLeft, each.scrollTop]);
  const traits = ["id", "data-month", "href", "data-copy"].filter((name) => focus.getAttribute(name));
  const place = [scrollX, scrollY];
  document.title = page.title;
  main.replaceChildren(...page.getElementById("main").childNodes);
  for (const each of all("details", main)) each.open = open.get(nameOf(each)) ?? each.open;
  all(".scroll", main).forEach((each, index) => [each.scrollLeft, each.scrollTop] = boxes[index] ?? [0, 0]);
  scrollTo(...place);
  if (traits.length && !focus.isConnected) {
    main.querySelector(`[${traits[0]}=${JSON.stringify(focus.getAttribute(traits[0]))}]`)?.focus({ preventScroll: true });
  }
  prepare();
}

// --- What changes while the page is open.

const path = location.pathname, run = path.startsWith("/runs/") ? path.slice(6) : "";
const isMonth = path.startsWith("/months/"), isLive = path === "/" || path.startsWith("/runs") || isMonth;
let source = null, wasLost = false;

function connect() {
  if (!isLive || document.hidden || source) return;
  const asOf = path === "/" ? document.querySelector(".head time")?.dateTime ?? "" : "";
  source = new EventSource(`/events?${new URLSearchParams({ run, as_of: asOf })}`);
  const notice = document.getElementById("lost");
  source.onopen = () => {
    notice.hidden = true;
    if (wasLost) soon(0);
    wasLost = false;
  };
  source.onerror = () => {
    wasLost = true;
    notice.hidden = false;
    if (source.readyState === EventSource.CLOSED) { disconnect(); setTimeout(connect, 5000); }
  };
  source.addEventListener("cells", (event) => showCells(JSON.parse(event.data)));
  source.addEventListener("grid", () => { if (path === "/" || isMonth) soon(100); });
  source.addEventListener("runs", () => { if (path === "/" || path === "/runs") soon(300); });
  source.addEventListener("run", (event) => showRun(JSON.parse(event.data)));
}

function disconnect() {
  source?.close();
  source = null;
}

function showCells(cells) {
  for (const [month, cell] of Object.entries(cells)) {
    const link = byMonth.get(month);
    if (!link) continue;
    link.className = `cell ${cell.mark}${link.classList.contains("selected") ? " selected" : ""}`;
    link.title = cell.title;
    link.querySelector("b").textContent = cell.sign;
    for (const bar of all("[data-step]", link)) bar.className = cell.steps[bar.dataset.step] ?? bar.className;
  }
  if (path === "/runs") soon(2000);
  if (isMonth && path.slice(8).replace("/", " ") in cells) soon(2000);
}

function showRun(news) {
  const box = document.querySelector("[data-version]");
  if (!box || news.version === undefined) return;
  if (box.dataset.version !== news.version) { soon(200); return; }
  box.querySelector("progress").value = news.fraction;
  for (const [name, [css, text]] of Object.entries(news.parts)) {
    const part = box.querySelector(`[data-state=${JSON.stringify(name)}]`);
    if (part) [part.className, part.textContent] = [css, text];
  }
  const list = document.getElementById("events"), newest = Number(list.firstElementChild?.dataset.number ?? 0);
  list.prepend(...all("li", parsed(news.log)).filter((line) => Number(line.dataset.number) > newest));
  while (list.childElementCount > 200) list.lastElementChild.remove();
}

// --- Months are selected by dragging, or with Shift and a click or an arrow.

let byMonth = new Map(), cells = [], anchor = null, isDragging = false, wasDragged = false;
const datasetOf = (cell) => cell.dataset.month.split(" ")[0];
const monthOf = (cell) => cell.dataset.month.split(" ")[1] ?? "";
const isShown = (cell) => cell.checkVisibility?.() ?? cell.offsetParent !== null;

function prepare() {
  byMonth = new Map(all(".cell[data-month]").map((each) => [each.dataset.month, each]));
  cells = all(".months .cell[data-month]");
  // One stop of the Tab key for each dataset: its newest month. Arrows do the rest.
  cells.forEach((cell, index) => {
    const next = cells[index + 1];
    cell.tabIndex = next && datasetOf(next) === datasetOf(cell) ? -1 : 0;
  });
  if (selected) select(...selected);
}

function neighbour(cell, key) {
  const own = cells.filter((each) => datasetOf(each) === datasetOf(cell) && isShown(each));
  const index = own.indexOf(cell);
  if (key === "ArrowLeft" || key === "ArrowRight") return own[index + (key === "ArrowRight" ? 1 : -1)];
  const [year, month] = monthOf(cell).split("-");
  const wanted = `${String(Number(year) + (key === "ArrowDown" ? 1 : -1))}-${month}`;
  return own.find((each) => monthOf(each) === wanted);
}

let selected = null;

function select(from, to) {
  const order = [...new Set(cells.map(datasetOf))];
  const [low, high] = [from, to].map((each) => order.indexOf(each.split(" ")[0])).sort((a, b) => a - b);
  const [first, last] = [from, to].map((each) => each.split(" ")[1]).sort();
  const datasets = order.slice(low, high + 1);
  let count = 0;
  for (const cell of cells) {
    const isIn = datasets.includes(datasetOf(cell)) && first <= monthOf(cell) && monthOf(cell) <= last;
    cell.classList.toggle("selected", isIn);
    count += isIn;
  }
  selected = [from, to];
  const bar = document.getElementById("selection"), period = first === last ? first : `${first}..${last}`;
  bar.hidden = false;
  const values = { count, months: `${datasets.join(" ")} ${period}` };
  bar.querySelector("span").textContent = texts.selected.replace(/%\((\w+)\)s/g, (_, name) => values[name]);
  const query = new URLSearchParams([["action", "backfill"], ...datasets.map((name) => ["dataset", name]), ["period", period]]);
  bar.querySelector("a").href = `/actions?${query}`;
}

function clear() {
  selected = anchor = null;
  for (const cell of cells) cell.classList.remove("selected");
  document.getElementById("selection").hidden = true;
}

const cellOf = (event) => event.target.closest?.(".months .cell[data-month]");
const canSelect = Boolean(document.getElementById("selection"));

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && selected) clear();
  const cell = cellOf(event);
  if (!cell || !event.key.startsWith("Arrow") || event.ctrlKey || event.metaKey || event.altKey) return;
  const next = neighbour(cell, event.key);
  event.preventDefault();
  if (!next) return;
  if (event.shiftKey && canSelect) select(anchor ??= cell.dataset.month, next.dataset.month);
  else anchor = null;
  next.focus();
});

document.addEventListener("click", (event) => {
  const button = event.target.closest(".copy");
  if (button) copy(button);
  if (event.target.closest("#selection button")) clear();
  const cell = cellOf(event);
  if (!cell || !canSelect) return;
  if (wasDragged || event.shiftKey) event.preventDefault();
  if (event.shiftKey && !wasDragged) select(anchor ??= cell.dataset.month, cell.dataset.month);
  wasDragged = false;
});

if (canSelect) {
  document.addEventListener("dragstart", (event) => { if (cellOf(event)) event.preventDefault(); });
  document.addEventListener("mousedown", (event) => {
    const cell = cellOf(event);
    wasDragged = false;
    isDragging = cell && !event.button && !event.shiftKey;
    if (isDragging) anchor = cell.dataset.month;
  });
  document.addEventListener("mouseover", (event) => {
    const cell = isDragging && event.buttons && cellOf(event);
    if (!cell || (cell.dataset.month === anchor && !wasDragged)) return;
    wasDragged = true;
    select(anchor, cell.dataset.month);
  });
}

document.addEventListener("toggle", (event) => {
  if (event.target.open && event.target.dataset.load) load(event.target);
}, true);
document.addEventListener("visibilitychange", () => {
  // A browser holds six connections to a server: pages in the background must not use them up.
  if (document.hidden) { disconnect(); wasLost = true; } else connect();
});
prepare();
for (const each of all("details[open][data-load]")) load(each);
connect();
