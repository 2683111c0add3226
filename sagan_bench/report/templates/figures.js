// Figures: what is pointed at, focused or touched says which run it is, and its value.
const tip = document.createElement("div");
tip.className = "tip";
tip.setAttribute("role", "status");
tip.hidden = true;
document.body.append(tip);

const BEFORE_LINES = 6;  // pixels: a point that near is meant before the line under it
function live(svg) {
  const links = [...svg.querySelectorAll("a.told")];
  const lists = JSON.parse(svg.dataset.steps ?? "[]"), scales = JSON.parse(svg.dataset.scales ?? "[]");
  const marks = links.map((link, index) => {
    const title = link.querySelector("title"), text = title.textContent;
    title.remove();  // else the browser shows it too
    link.setAttribute("aria-label", text);
    link.setAttribute("tabindex", index ? -1 : 0);  // one stop a figure; arrows lead on
    return { link, text, steps: lists[link.dataset.steps], scale: scales[link.dataset.axes] };
  });
  // Where a mark has its points, within the figure; read when first asked for.
  function points(mark) {
    if (mark.points) return mark.points;
    const path = mark.link.querySelector("path"), uses = [...mark.link.querySelectorAll("use")];
    if (mark.steps || !uses.length) {
      const ends = [...path.getAttribute("d").matchAll(/([ML]) ?(-?[\d.]+)[ ,]+(-?[\d.]+)/g)];
      mark.points = ends.map((end) => [+end[2], +end[3], end[1] === "L"]);  // whether a line leads there
    } else {
      mark.points = uses.map((use) => [+use.getAttribute("x"), +use.getAttribute("y")]);
    }
    return mark.points;
  }
  function says(mark, at) {
    if (!mark.steps || mark.points.length !== mark.steps.length) return mark.text;
    const [top, by] = mark.scale, value = top + by * mark.points[at][1];
    // No more digits than the drawing holds: a thousandth of the figure's height.
    const digits = Math.max(0, Math.ceil(-Math.log10(Math.abs(by) * svg.viewBox.baseVal.height / 1000)));
    const shown = Math.abs(value) < 10 ** -digits / 2 ? 0 : value;
    return mark.text + ": step " + mark.steps[at].toLocaleString("en") + ", " + shown.toFixed(Math.min(digits, 6)).replace("-", "−");
  }
  let lit = null, at = 0;
  function show(mark, index, touched) {
    hide();
    [lit, at] = [mark, index];
    mark.link.classList.add("on");
    const [x, y] = points(mark)[at], place = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());
    tip.textContent = says(mark, at);
    if (touched && mark.link.hasAttribute("href")) {
      const leads = document.createElement("a");
      leads.href = mark.link.getAttribute("href");
      leads.textContent = "to the table";
      leads.addEventListener("click", hide);
      tip.append(" · ", leads);
    }
    tip.style.left = 0;  // measured where it has room
    tip.hidden = false;
    const box = tip.getBoundingClientRect(), wide = document.documentElement.clientWidth;
    const left = Math.max(4, Math.min(place.x - box.width / 2, wide - box.width - 4));
    const above = place.y - box.height - 10;
    tip.style.left = left + scrollX + "px";
    tip.style.top = (above < 0 ? place.y + 12 : above) + scrollY + "px";
  }
  function hide() {
    lit?.link.classList.remove("on");
    lit = null;
    tip.hidden = true;
  }
  function nearest(event, within) {
    const seen = svg.getScreenCTM(), { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(seen.inverse());
    let best = null, least = within / seen.a;
    for (const mark of marks) {
      const all = points(mark);
      all.forEach(([px, py, joined], index) => {
        let far = Math.hypot(px - x, py - y), at = index;
        if (joined) {
          const [qx, qy] = all[index - 1], [dx, dy] = [px - qx, py - qy];
          const along = Math.max(0, Math.min(1, ((x - qx) * dx + (y - qy) * dy) / (dx * dx + dy * dy || 1)));
          const line = Math.hypot(qx + along * dx - x, qy + along * dy - y) + BEFORE_LINES / seen.a;
          if (line < far) [far, at] = [line, along < 0.5 ? index - 1 : index];
        }
        if (far < least) [best, least] = [[mark, at], far];
      });
    }
    return best;
  }
  svg.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch") return;
    const found = nearest(event, 16);
    svg.style.cursor = found?.[0].link.hasAttribute("href") ? "pointer" : "";
    if (found) show(...found); else hide();
  });
  svg.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") hide(); });
  svg.addEventListener("click", (event) => {
    if (event.detail === 0) return;  // by the keyboard: the link is followed
    const touched = event.pointerType === "touch" || event.pointerType === "pen";
    const found = nearest(event, touched ? 32 : 16);
    event.preventDefault();
    if (!found) hide();
    else if (touched) show(...found, true);
    else if (found[0].link.hasAttribute("href")) lead(found[0].link.getAttribute("href"), event);
  });
  function go(mark) {
    for (const other of marks) other.link.setAttribute("tabindex", other === mark ? 0 : -1);
    mark.link.focus({ preventScroll: true });
  }
  svg.addEventListener("focusin", (event) => {
    const mark = marks.find((one) => one.link === event.target);
    if (mark && mark !== lit) show(mark, points(mark).length - 1);
  });
  svg.addEventListener("focusout", (event) => { if (!tip.contains(event.relatedTarget)) hide(); });
  svg.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return hide();
    const here = marks.findIndex((one) => one.link === document.activeElement), mark = marks[here];
    if (!mark) return;
    const along = { ArrowRight: 1, ArrowLeft: -1 }[event.key], across = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const ends = { Home: 0, End: marks.length - 1 }[event.key];
    if (along && mark.steps) {
      show(mark, Math.max(0, Math.min((lit ? at : -1) + along, points(mark).length - 1)));
      tip.scrollIntoView?.({ block: "nearest" });
    } else if (along || across) {
      go(marks[(here + (along ?? across) + marks.length) % marks.length]);
    } else if (ends !== undefined) {
      go(marks[ends]);
    } else {
      return;
    }
    event.preventDefault();
  });
}
for (const svg of document.querySelectorAll("svg[data-live]")) live(svg);
