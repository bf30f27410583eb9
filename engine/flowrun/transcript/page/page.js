// The page is whole without this: it opens what a link leads into, links the graph to the steps, and moves by j and k.
(() => {
  "use strict";
  const steps = () => [...document.querySelectorAll("details.step")].filter((step) => step.offsetParent !== null);

  const reveal = (step) => {
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

  for (const step of document.querySelectorAll("details.step")) {
    const summary = step.querySelector("summary");
    for (const [event, on] of [["mouseenter", true], ["mouseleave", false], ["focus", true], ["blur", false]]) {
      summary.addEventListener(event, () => light(step, on));
    }
  }

  const fold = document.createElement("button");
  fold.type = "button";
  fold.className = "fold-all";
  const all = () => [...document.querySelectorAll("details.step")];
  const name = () => { fold.textContent = all().some((step) => step.open) ? "Fold all" : "Unfold all"; };
  fold.addEventListener("click", () => {
    const open = !all().some((step) => step.open);
    for (const step of all()) step.open = open;
    name();
  });
  name();
  document.querySelector("#steps h2").append(fold);

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !["j", "k"].includes(event.key)) return;
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
