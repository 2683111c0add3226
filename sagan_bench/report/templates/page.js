"use strict";
// Sorts, filters, copies; the page is whole without it.  The state lies in the query of the address.
const state = new URLSearchParams(location.search);
function remember(key, value) {
  if (value) state.set(key, value); else state.delete(key);
  const query = state.toString();
  try {
    history.replaceState(null, "", location.pathname + (query ? "?" + query : "") + location.hash);
  } catch { /* some browsers forbid it for files */ }
}

function compare(a, b, numeric) {
  if (a === "" || b === "") return (a === "") - (b === "");
  return numeric ? a - b : a.localeCompare(b, undefined, { numeric: true });
}
function sortBy(table, index, descending) {
  const headers = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const numeric = headers[index].classList.contains("n");
  const value = (row) => row.cells[index].dataset.v;
  const rows = [...body.rows].filter((row) => !("pinned" in row.dataset));
  rows.sort((a, b) => {
    const missing = value(a) === "" || value(b) === "";
    const order = compare(value(a), value(b), numeric);
    return descending && !missing ? -order : order;  // missing values stay last
  });
  const last = [...body.rows].filter((row) => "pinned" in row.dataset && row.previousElementSibling);
  body.append(...rows, ...last);
  headers.forEach((header) => header.removeAttribute("aria-sort"));
  headers[index].setAttribute("aria-sort", descending ? "descending" : "ascending");
}
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const key = "sort-" + table.id.slice(2);
  [...table.tHead.rows[0].cells].forEach((header, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const descending = header.getAttribute("aria-sort") === "ascending";
      sortBy(table, index, descending);
      remember(key, index + (descending ? "d" : "a"));
    });
  });
  const found = /^(\d+)([ad])$/.exec(state.get(key) ?? "");
  if (found && +found[1] < table.tHead.rows[0].cells.length) sortBy(table, +found[1], found[2] === "d");
}

for (const table of document.querySelectorAll("table[data-filtered]")) {
  const rows = [...table.tBodies[0].rows], form = document.createElement("div");
  form.className = "filter";
  const chosen = {};
  const told = document.createElement("span");
  told.setAttribute("role", "status");
  const apply = () => {
    for (const row of rows) {
      row.hidden = Object.entries(chosen).some(([field, value]) => value && row.dataset[field] !== value);
    }
    told.textContent = rows.filter((row) => !row.hidden).length + " of " + rows.length + " shown";
  };
  for (const field of ["variant", "status"]) {
    const label = document.createElement("label"), select = document.createElement("select");
    label.append("Show " + field, select);
    select.append(new Option("all", ""));
    for (const value of new Set(rows.map((row) => row.dataset[field]))) select.append(new Option(value));
    select.name = field;
    const before = state.get(field) ?? "";
    if ([...select.options].some((option) => option.value === before)) select.value = chosen[field] = before;
    select.addEventListener("change", () => {
      chosen[field] = select.value;
      remember(field, select.value);
      apply();
    });
    form.append(label);
  }
  form.append(told);
  table.closest(".frame").prepend(form);
  apply();
}

// A table that is wider than its place says so, until its end is reached.
for (const place of document.querySelectorAll(".frame .table")) {
  const frame = place.parentElement, told = document.createElement("span");
  told.className = "hint";
  told.textContent = "more columns: scroll sideways →";
  frame.querySelector(".caption").append(told);
  const look = () => {
    const rest = place.scrollWidth - place.clientWidth;
    frame.classList.toggle("over", rest > 1);
    frame.classList.toggle("end", rest - place.scrollLeft <= 1);
  };
  place.addEventListener("scroll", look, { passive: true });
  new ResizeObserver(look).observe(place);
  const all = frame.querySelector(".all input");
  if (all) {
    all.checked = state.get(all.id) === "1";
    all.addEventListener("change", () => { remember(all.id, all.checked ? "1" : ""); look(); });
  }
  look();
}

for (const command of document.querySelectorAll("pre.command")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(command.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(command);
      button.textContent = "Selected: press Ctrl-C";
    }
  });
  command.after(button);
}

// A link into a closed part opens it, and one to a row that a filter hides has all rows shown.
function open(event) {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (event && target?.hidden) {  // not as the page loads: its address has the filter too
    for (const select of target.closest(".frame").querySelectorAll(".filter select")) {
      select.value = "";
      select.dispatchEvent(new Event("change"));
    }
    target.scrollIntoView();
  }
  for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  return target;
}
function lead(to, event) {
  if (location.hash === to) open(event)?.scrollIntoView();  // there once already: no change to follow
  else location.hash = to;
}
addEventListener("hashchange", open);
document.addEventListener("click", (event) => {
  const to = event.target.closest?.("a[href^='#']")?.getAttribute("href");
  if (to && !event.defaultPrevented && location.hash === to) lead(to, event);
});
open();
