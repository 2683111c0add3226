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
function slider(steps, chosen) {
  const label = document.createElement("label"), range = document.createElement("input"), told = document.createElement("output");
  label.className = "slider";
  range.type = "range";
  range.max = steps.length - 1;
  range.value = steps.length - 1;
  const say = () => {
    told.textContent = "step " + steps[range.value].toLocaleString("en");
    range.setAttribute("aria-valuetext", told.textContent);
  };
  range.addEventListener("input", () => { say(); chosen(steps[range.value]); });
  label.append("Over training ", range, told);
  say();
  return { label, range, say };
}
function at(picture, step) {
  const film = films.get(picture.dataset.of) ?? [];
  const [shown, uri] = film.findLast(([of]) => of <= step) ?? film[0] ?? [null, picture.src];
  const last = shown === null || shown === film.at(-1)[0];
  return { uri, alt: picture.dataset.alt + (last ? "" : ", at step " + shown.toLocaleString("en")) };
}
for (const folded of document.querySelectorAll("details.film")) {
  const row = folded.previousElementSibling, pictures = [...row.querySelectorAll("img")], steps = new Set();
  for (const frame of folded.querySelectorAll("img")) {
    const of = frame.dataset.of, step = +frame.dataset.step;
    films.set(of, [...(films.get(of) ?? []), [step, frame.src]]);
    steps.add(step);
  }
  const ends = pictures.filter((picture) => films.has(picture.dataset.of));
  for (const picture of ends) {
    picture.dataset.alt = picture.alt;
    films.get(picture.dataset.of).push([+picture.dataset.step, picture.src]);
    steps.add(+picture.dataset.step);
  }
  const all = [...steps].sort((a, b) => a - b);
  row.before(slider(all, (step) => {
    for (const picture of ends) Object.assign(picture, { src: at(picture, step).uri, alt: at(picture, step).alt });
  }).label);
}

// One picture as large as the window; the others of its row take its place at a key or a touch.
let view = null;
function enlarge(picture) {
  const row = [...picture.closest(".pictures").querySelectorAll("img")].filter((one) => one.closest(".pictures").dataset.film === undefined);
  view?.remove();
  view = document.createElement("dialog");
  view.className = "view";
  view.setAttribute("aria-label", "Enlarged picture");
  const large = document.createElement("img"), told = document.createElement("p"), tools = document.createElement("div");
  told.setAttribute("role", "status");
  tools.className = "tools";
  let here = row.indexOf(picture), step = Infinity, flipped = null;
  const name = (one) => one.closest("figure").querySelector("figcaption").innerText.split("·")[0].replaceAll("\n", ", ").trim();
  const show = () => {
    const shown = row[flipped ?? here], now = films.has(shown.dataset.of) ? at(shown, step) : { uri: shown.src, alt: shown.alt };
    Object.assign(large, { src: now.uri, alt: now.alt });
    large.classList.toggle("smooth", shown.closest(".pictures").classList.contains("maps"));
    told.textContent = name(shown);
  };
  const turn = (by) => { here = (here + by + row.length) % row.length; flipped = null; offer(); show(); };
  const flip = () => { if (with_.value !== "") flipped = flipped === null ? +with_.value : null; show(); };
  // To be flipped with: what is of the same noise, or of the same block; real images are of none.
  const with_ = document.createElement("select"), label = document.createElement("label");
  const offer = () => {
    const group = row[here].dataset.noise;
    const others = row.map((one, index) => [one, index]).filter(([one, index]) => group && one.dataset.noise === group && index !== here);
    with_.replaceChildren(...others.map(([one, index]) => new Option(name(one).split(",")[0], index)));
    label.hidden = flipping.hidden = !others.length;
  };
  with_.addEventListener("change", () => { flipped = +with_.value; show(); });
  label.append("Flip with ", with_);
  const flipping = button("Flip (F)", flip);
  tools.append(button("← Before", () => turn(-1)), button("Next →", () => turn(1)), label, flipping, button("Close", () => view.close()));
  const film = films.get(picture.dataset.of);
  if (film) tools.append(slider(film.map(([of]) => of), (of) => { step = of; show(); }).label);
  view.append(large, told, tools);
  view.addEventListener("keydown", (event) => {
    if (event.target.matches("select, input")) return;
    if (event.key === "f" || event.key === "F") flip();
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
