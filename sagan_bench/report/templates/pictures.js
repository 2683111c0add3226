// Pictures: enlarged, flipped at the same noise, and over training.
function button(text, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", act);
  return made;
}

// A row of pictures and, folded below it, the same over training: one slider for all of the row.
const films = new Map();  // what a picture is of -> [step, address], the last being the picture itself
const rows = new Map();  // row of pictures -> its steps, the chosen one, and what moves it there
function frame(picture, step = Infinity) {
  const film = films.get(picture.dataset.of);
  if (!film) return { uri: picture.src, alt: picture.alt, step: null, aside: "" };
  const [shown, uri] = film.findLast(([of]) => of <= step) ?? film[0];
  const earlier = shown !== film.at(-1)[0];  // then what is written below tells of another picture
  const aside = earlier ? "picture of step " + shown.toLocaleString("en") + ", words of the end" : "";
  return { uri, alt: picture.dataset.alt + (aside && "; " + aside), step: shown, aside };
}
function slider(row) {
  const { steps } = rows.get(row), label = document.createElement("label");
  const range = document.createElement("input"), told = document.createElement("output");
  label.className = "slider";
  range.type = "range";
  range.max = steps.length - 1;
  const say = () => {
    range.value = steps.indexOf(rows.get(row).step);
    told.textContent = "step " + rows.get(row).step.toLocaleString("en");
    range.setAttribute("aria-valuetext", told.textContent);
  };
  range.addEventListener("input", () => rows.get(row).move(steps[range.value]));
  label.append("Over training ", range, told);
  rows.get(row).told.push(say);
  say();
  return label;
}
for (const folded of document.querySelectorAll("details.film")) {
  const row = folded.previousElementSibling, steps = new Set();
  for (const shown of folded.querySelectorAll("img")) {
    const of = shown.dataset.of, step = +shown.dataset.step;
    films.set(of, [...(films.get(of) ?? []), [step, shown.src]]);
    steps.add(step);
  }
  const moved = [...row.querySelectorAll("img")].filter((picture) => films.has(picture.dataset.of));
  for (const picture of moved) {
    picture.dataset.alt = picture.alt;
    films.get(picture.dataset.of).push([+picture.dataset.step, picture.src]);
    picture.closest("figure").querySelector("figcaption").append(document.createElement("span"));
    steps.add(+picture.dataset.step);
  }
  const all = [...steps].sort((a, b) => a - b);
  const state = { steps: all, step: all.at(-1), told: [], move(step) {
    state.step = step;
    for (const picture of moved) {
      const { uri, alt, aside } = frame(picture, step);
      Object.assign(picture, { src: uri, alt });
      picture.closest("figure").querySelector("figcaption > span:last-child").textContent = aside && " · " + aside;
    }
    for (const say of state.told) say();
  } };
  rows.set(row, state);
  row.before(slider(row));
}

// One picture as large as the window; the others of its row take its place at a key or a touch.
let view = null;
function enlarge(picture) {
  const place = picture.closest(".pictures"), row = [...place.querySelectorAll("img")], state = rows.get(place);
  view?.remove();
  view = document.createElement("dialog");
  view.className = "view";
  view.setAttribute("aria-label", "Enlarged picture");
  const large = document.createElement("img"), told = document.createElement("p"), tools = document.createElement("div");
  told.setAttribute("role", "status");
  tools.className = "tools";
  large.classList.toggle("smooth", place.classList.contains("maps"));
  let here = row.indexOf(picture), flipped = null;
  const caption = (one) => one.closest("figure").querySelector("figcaption");
  const name = (one) => caption(one).innerText.split("·")[0].replaceAll("\n", ", ").trim();
  const variant = (one) => [...caption(one).querySelectorAll(".mark, strong")].map((part) => part.innerText).join(" ");
  const show = () => {
    const shown = row[flipped ?? here], { uri, alt, step, aside } = frame(shown, state?.step);
    Object.assign(large, { src: uri, alt });
    const end = step === null ? "" : ", at step " + step.toLocaleString("en");
    told.textContent = name(shown) + (aside ? "; " + aside : end);
  };
  const turn = (by) => { here = (here + by + row.length) % row.length; flipped = null; offer(); show(); };
  const flip = () => { if (other.value !== "") flipped = flipped === null ? +other.value : null; show(); };
  // To be flipped with: what is of the same noise, or of the same block; real images are of none.
  const other = document.createElement("select"), label = document.createElement("label"), flipping = button("Flip (F)", flip);
  const offer = () => {
    const group = row[here].dataset.noise;
    const others = row.map((one, index) => [one, index]).filter(([one, index]) => group && one.dataset.noise === group && index !== here);
    other.replaceChildren(...others.map(([one, index]) => new Option(variant(one), index)));
    label.hidden = flipping.hidden = !others.length;
  };
  other.addEventListener("change", () => { flipped = +other.value; show(); });
  label.append("Flip with ", other);
  tools.append(button("← Before", () => turn(-1)), button("Next →", () => turn(1)), label, flipping, button("Close", () => view.close()));
  if (state) {
    state.told.length = 1;  // that of the page
    state.told.push(show);
    tools.append(slider(place));
  }
  view.append(large, told, tools);
  view.addEventListener("keydown", (event) => {
    if (event.key === "f" || event.key === "F") flip();
    else if (event.target.matches("select, input")) return;
    else if (event.key === "ArrowRight") turn(1);
    else if (event.key === "ArrowLeft") turn(-1);
    else return;
    event.preventDefault();
  });
  large.addEventListener("click", flip);
  view.addEventListener("close", () => { picture.parentElement.focus(); view.remove(); });
  document.body.append(view);
  offer();
  show();
  view.showModal();
}
for (const link of document.querySelectorAll("a.large")) {
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;  // the lossless file, elsewhere
    event.preventDefault();
    enlarge(link.querySelector("img"));
  });
}
