// A text field that narrows a list of speakers down, by mouse or by keyboard
// (the combobox of the ARIA Authoring Practices).

const MOST_SHOWN = 100;

export class Speakers {
  /** @param {(name: ?string) => void} chosen Called when the choice changes. */
  constructor(chosen) {
    const of = (id) => document.getElementById(id);
    [this.input, this.all, this.box, this.list, this.more, this.note] = [
      "speaker", "speaker-all", "choices", "speakers", "more", "speaker-note",
    ].map(of);
    this.chosen = chosen;
    this.names = [];
    this.active = -1;
    this.input.addEventListener("input", () => this.open(this.input.value));
    this.input.addEventListener("keydown", (event) => this.press(event));
    this.input.addEventListener("click", () => this.open(""));
    this.input.addEventListener("blur", () => this.close());
    this.input.addEventListener("change", () => this.settle());
    this.all.addEventListener("mousedown", (event) => {
      event.preventDefault();
      this.input.focus();
      if (this.shown) this.close();
      else this.open("");
    });
    this.box.addEventListener("mousedown", (event) => event.preventDefault());
    this.list.addEventListener("click", ({ target }) => {
      const option = target.closest("[role=option]");
      if (option) this.take(option.textContent);
    });
  }

  /**
   * A lone speaker is chosen, but once for each key: who emptied the field meant it.
   * @param {string[]} names Of all that may be chosen.
   * @param {string} key By which they were asked for.
   */
  set(names, key) {
    this.names = [...names].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    this.input.disabled = this.all.disabled = names.length === 0;
    if (names.length === 1 && this.key !== key) this.input.value = names[0];
    this.key = key;
    this.settle();
    if (this.shown) this.open(this.asked);
  }

  /** Who is chosen; null is nobody; undefined where the field holds no speaker's name. */
  get value() {
    const asked = this.input.value.trim();
    if (!asked) return null;
    if (this.names.includes(asked)) return asked;
    const alike = this.names.filter((name) => name.toLowerCase() === asked.toLowerCase());
    return alike.length === 1 ? alike[0] : undefined;
  }

  get shown() {
    return !this.box.hidden;
  }

  settle() {
    const value = this.value;
    if (value) this.input.value = value;
    this.input.setAttribute("aria-invalid", String(value === undefined));
    this.note.classList.toggle("wrong", value === undefined);
    if (value === undefined) {
      this.note.textContent = `No speaker is called “${this.input.value.trim()}”. Choose one from the list, or empty the field.`;
    } else if (this.names.length === 0) {
      this.note.textContent = "There are no Submodels to choose from.";
    } else {
      const count = this.names.length.toLocaleString("en");
      this.note.textContent = value === null
        ? `${count} to choose from; type to narrow down.`
        : "Empty the field for the backbone alone.";
    }
    this.chosen(value);
  }

  open(asked) {
    this.asked = asked;
    const wanted = asked.trim().toLowerCase();
    const found = this.names.filter((name) => name.toLowerCase().includes(wanted));
    const begins = (name) => name.toLowerCase().startsWith(wanted);
    found.sort((a, b) => begins(b) - begins(a));
    const chosen = this.value;
    const options = found.slice(0, MOST_SHOWN).map((name, place) => {
      const option = document.createElement("li");
      option.id = `speaker-${place}`;
      option.role = "option";
      option.textContent = name;
      option.setAttribute("aria-selected", String(name === chosen));
      return option;
    });
    this.list.replaceChildren(...options);
    const rest = found.length - options.length;
    this.more.textContent = found.length === 0
      ? "No speaker matches."
      : rest ? `and ${rest.toLocaleString("en")} more` : "";
    this.list.hidden = found.length === 0;
    this.box.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    this.go(wanted && found.length ? 0 : -1);
  }

  close() {
    this.box.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.go(-1);
  }

  go(place) {
    const options = this.list.children;
    options[this.active]?.classList.remove("active");
    this.active = place;
    const option = options[place];
    if (option) {
      option.classList.add("active");
      option.scrollIntoView({ block: "nearest" });
      this.input.setAttribute("aria-activedescendant", option.id);
    } else {
      this.input.removeAttribute("aria-activedescendant");
    }
  }

  take(name) {
    this.input.value = name;
    this.close();
    this.settle();
  }

  press(event) {
    const count = this.list.children.length;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      if (!this.shown) this.open("");
      else if (count) this.go((Math.max(this.active, step > 0 ? -1 : 0) + step + count) % count);
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (this.shown && this.active >= 0) this.take(this.list.children[this.active].textContent);
      else {
        this.close();
        this.settle();
      }
    } else if (event.key === "Escape") {
      if (this.shown) this.close();
      else {
        this.input.value = "";
        this.settle();
      }
    }
  }
}
