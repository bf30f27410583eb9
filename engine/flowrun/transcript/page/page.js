// The page is whole without this: it opens what a link leads into, links the graph to the steps, searches the steps,
// and moves by the keys j and k (steps), e (errors) and / (search). Whoever changes the steps later sends the document
// "flowrun:changed"; what this script itself adds has the attribute data-own.
(() => {
  "use strict";
  const steps = () => [...document.querySelectorAll("details.step")].filter((step) => step.offsetParent !== null);

  const reveal = (step) => {
    if (step.closest("li[hidden]") !== null) showAll();
    for (let at = step; at !== null; at = at.parentElement?.closest("details") ?? null) at.open = true;
    step.scrollIntoView({ block: "nearest" });
    step.querySelector("summary").focus({ preventScroll: true });
  };

  const target = () => {
    const id = location.hash.slice(1);
    try {
      return document.getElementById(id) ?? document.getElementById(decodeURIComponent(id));
    } catch {
      return null; // no valid escape
    }
  };

  const follow = () => {
    const found = target();
    if (found !== null && found.matches("details.step")) {
      reveal(found);
      found.scrollIntoView({ block: "start" });
    }
  };

  const light = (step, on) => {
    for (const link of document.querySelectorAll(`[data-flow="${step.dataset.flow}"] a[data-state]`)) {
      if (link.dataset.state === step.dataset.state) link.classList.toggle("lit", on);
    }
  };

  const bound = new WeakSet();
  const bind = (step) => {
    if (bound.has(step)) return;
    bound.add(step);
    const summary = step.querySelector("summary");
    for (const [event, on] of [["mouseenter", true], ["mouseleave", false], ["focus", true], ["blur", false]]) {
      summary.addEventListener(event, () => light(step, on));
    }
  };

  const fold = document.createElement("button");
  fold.type = "button";
  fold.className = "fold-all";
  fold.dataset.own = "";
  const all = () => [...document.querySelectorAll("details.step")];
  const name = () => { fold.textContent = all().some((step) => step.open) ? "Fold all" : "Unfold all"; };
  fold.addEventListener("click", () => {
    const open = !all().some((step) => step.open);
    for (const step of all()) step.open = open;
    name();
  });
  document.querySelector("#steps h2").append(fold);

  // --- finding a step among hundreds: by words, by its state, by what went wrong

  const find = document.createElement("div");
  find.className = "find";
  find.dataset.own = "";
  const words = document.createElement("input");
  words.type = "search";
  words.placeholder = "Search the steps ( / )";
  words.setAttribute("aria-label", "Search the steps");
  const count = document.createElement("span");
  count.className = "faint small count";
  count.setAttribute("role", "status");
  const button = (label, action) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = label;
    made.addEventListener("click", () => action(made));
    find.append(made);
    return made;
  };

  const texts = new Map();
  const textOf = (step) => {
    if (!texts.has(step)) texts.set(step, step.textContent.toLowerCase());
    return texts.get(step);
  };
  let state = null;
  const isOfState = (step) => state === null || (step.dataset.flow === state.flow && step.dataset.state === state.name);
  const apply = () => {
    const sought = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const all_ = all();
    const found = new Set();
    let number = 0;
    for (const step of all_) {
      if (!isOfState(step) || !sought.every((word) => textOf(step).includes(word))) continue;
      number += 1;
      for (let at = step; at !== null; at = at.parentElement.closest("details.step")) found.add(at);
    }
    for (const step of all_) step.parentElement.hidden = !found.has(step);
    count.textContent = sought.length || state !== null ? `${number} of ${all_.length} steps` : "";
  };
  let chips = [];
  const choose = (chip, wanted) => {
    state = chip.getAttribute("aria-pressed") === "true" ? null : wanted;
    for (const other of chips) other.setAttribute("aria-pressed", String(other === chip && state !== null));
    apply();
  };
  const showAll = () => {
    words.value = "";
    state = null;
    for (const chip of chips) chip.setAttribute("aria-pressed", "false");
    apply();
  };
  words.addEventListener("input", apply);
  words.addEventListener("keydown", (event) => {
    if (event.key === "Escape") showAll();
    if (event.key === "Enter" && steps().length) reveal(steps()[0]);
  });

  const errors = () => steps().filter((step) => "flawed" in step.dataset || step.classList.contains("broken"));
  const focused = () => document.activeElement?.closest("details.step") ?? null;
  const nextError = () => {
    const wrong = errors();
    const from = focused();
    const after = (step) => from === null || (from.compareDocumentPosition(step) & Node.DOCUMENT_POSITION_FOLLOWING) !== 0;
    const next = wrong.find(after) ?? wrong[0];
    if (next !== undefined) {
      reveal(next);
      next.scrollIntoView({ block: "start" });
    }
  };
  const tally = () => {
    chips = [];
    find.replaceChildren(words);
    const wrong = all().filter((step) => "flawed" in step.dataset || step.classList.contains("broken")).length;
    if (wrong) button(`Next error (${wrong})`, nextError).classList.add("next-error");
    const visits = new Map();
    for (const step of all()) {
      const key = JSON.stringify([step.dataset.flow, step.dataset.state]);
      visits.set(key, (visits.get(key) ?? 0) + 1);
    }
    for (const [key, times] of visits) {
      const [flow, name_] = JSON.parse(key);
      const chip = button(times > 1 ? `${name_} ×${times}` : name_, (made) => choose(made, { flow, name: name_ }));
      chip.dataset.chip = name_;
      chip.setAttribute("aria-pressed", String(state !== null && state.flow === flow && state.name === name_));
      chips.push(chip);
    }
    find.append(count);
    if (all().length > 1 && !find.isConnected) document.querySelector("#steps h2").after(find);
  };
  const look = () => {
    const [at, from] = [document.activeElement, words.selectionStart];
    texts.clear();
    all().forEach(bind);
    name();
    tally();
    if (words.value || state !== null) apply();
    if (at === words && document.activeElement !== words) {
      words.focus({ preventScroll: true });
      words.setSelectionRange(from, from);
    }
  };
  look();
  document.addEventListener("flowrun:changed", look);

  // --- a drawing that is wider than its place begins at the path taken

  for (const place of document.querySelectorAll(".graph")) {
    const show = () => {
      const flow = place.dataset.flow ?? place.querySelector("[data-flow]").dataset.flow;
      const first = document.querySelector(`details.step[data-flow="${flow}"]`)?.dataset.state;
      const box = [...place.querySelectorAll("a[data-state]")].find((link) => link.dataset.state === first);
      if (box === undefined || place.scrollWidth <= place.clientWidth) return;
      const [at, here] = [box.getBoundingClientRect(), place.getBoundingClientRect()];
      place.scrollLeft += (at.left + at.right) / 2 - (here.left + here.right) / 2;
    };
    place.addEventListener("toggle", show);
    show();
  }

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target instanceof Element && event.target.closest("input, select, textarea") !== null) return;
    if (event.key === "e") nextError();
    if (event.key === "/") {
      event.preventDefault();
      words.focus();
    }
    if (!["j", "k"].includes(event.key)) return;
    const there = steps();
    const at = there.findIndex((step) => step.contains(document.activeElement) && step.querySelector("summary") === document.activeElement);
    const next = there[event.key === "j" ? at + 1 : Math.max(at - 1, 0)];
    if (next !== undefined) {
      next.scrollIntoView({ block: "start" });
      next.querySelector("summary").focus({ preventScroll: true });
    }
  });

  addEventListener("hashchange", follow);
  follow();
})();
