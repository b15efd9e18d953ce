/** The list of objects: select, add, rename and remove. */

const MAX_OBJECTS = 64;

export class ObjectList {
  /** @param root list element; actions: onSelect(), save(objects) */
  constructor(root, addButton, state, palette, actions) {
    Object.assign(this, { root, addButton, state, palette, actions, selected: 1, shown: "" });
    addButton.addEventListener("click", () => this.add());
  }

  nameOf(label) { return this.state.objects.find((object) => object.label === label)?.name ?? `object ${label}`; }
  ensureSelected() { this.ensure([this.selected]); }

  /** Add the labels that are not in the list. */
  ensure(labels) {
    const known = new Set(this.state.objects.map((object) => object.label));
    const missing = [...labels].filter((label) => label && !known.has(label));
    if (!missing.length) return;
    const added = missing.map((label) => ({ label, name: `object ${label}` }));
    this.change([...this.state.objects, ...added].sort((a, b) => a.label - b.label));
  }

  add() {
    const used = new Set(this.state.objects.map((object) => object.label));
    if (used.size >= MAX_OBJECTS) return;
    let label = 1;
    while (used.has(label)) label++;
    this.ensure([label]);
    this.select(label);
    this.root.querySelector(".selected").scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  select(label) {
    this.selected = label;
    this.markSelected();
    this.actions.onSelect();
  }

  /** Select the object at a place of the list, from 0. */
  selectPlace(place) {
    const object = this.state.objects[place];
    if (object) this.select(object.label);
  }

  rename(label, name) {
    this.change(this.state.objects.map((object) => (object.label === label
      ? { label, name: name.trim() || `object ${label}` } : object)));
  }

  remove(label) { this.change(this.state.objects.filter((object) => object.label !== label)); }

  change(objects) {
    this.state.objects = objects;
    this.render();
    this.actions.save(objects);
  }

  /** Show the list. It is built again only if it changed, so that a name that is being typed is kept. */
  render() {
    const objects = this.state.objects, shown = JSON.stringify(objects);
    if (objects.length && !objects.some((object) => object.label === this.selected)) this.selected = objects[0].label;
    if (shown !== this.shown) {
      this.shown = shown;
      this.addButton.disabled = objects.length >= MAX_OBJECTS;
      this.root.replaceChildren(...objects.map((object, place) => this.row(object, place)));
    }
    this.markSelected();
  }

  markSelected() {
    for (const row of this.root.children) {
      const selected = Number(row.dataset.label) === this.selected;
      row.classList.toggle("selected", selected);
      row.querySelector(".swatch").setAttribute("aria-pressed", selected);
    }
  }

  /** Show the confidence of each object on a frame. */
  showFigures(frame) {
    for (const row of this.root.children) {
      const figures = this.state.figures.get(Number(row.dataset.label)), shown = row.querySelector(".figures");
      const area = figures?.area[frame] ?? 0;
      shown.textContent = area ? percent(figures.confidence[frame]) : "";
      shown.title = area ? `${area.toLocaleString("en")} pixels; mean confidence ${shown.textContent}, at the ` +
        `boundary ${percent(figures.boundary[frame])}` : "";
    }
  }

  row({ label, name }, place) {
    const row = element("li", {});
    row.dataset.label = label;
    const key = place < 9 ? `, key ${place + 1}` : "";
    const select = element("button", { className: "swatch", textContent: label, title: `Select ${name}${key}` });
    const [red, green, blue] = this.palette[label];
    select.style.backgroundColor = `rgb(${red} ${green} ${blue})`;
    select.style.color = red * 0.3 + green * 0.59 + blue * 0.11 > 110 ? "#000" : "#fff";
    const input = element("input", { value: name, maxLength: 60, spellcheck: false });
    input.setAttribute("aria-label", `Name of object ${label}`);
    const figures = element("span", { className: "figures" });
    const remove = element("button", { className: "remove", textContent: "×", title: `Remove ${name}` });
    remove.setAttribute("aria-label", `Remove ${name}`);
    row.append(select, input, figures, remove);
    select.addEventListener("click", () => this.select(label));
    input.addEventListener("focus", () => this.select(label));
    input.addEventListener("change", () => this.rename(label, input.value));
    remove.addEventListener("click", () => this.remove(label));
    return row;
  }
}

function element(name, properties) { return Object.assign(document.createElement(name), properties); }

function percent(part) { return `${Math.round(part * 100)} %`; }
