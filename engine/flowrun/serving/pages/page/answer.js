// A form is whole without this: it hides what is not asked for, and keeps a half-typed date from being sent as none.
(() => {
  "use strict";
  const prepare = (form) => {
    form.classList.add("scripted");
    form.noValidate = true; // a browser refuses to send what is wrong in a field that is hidden

    const isAsked = ([name, sent, unless]) => {
      const now = new FormData(form).getAll(name);
      const isAnswered = now.some((value) => value !== "");
      return isAnswered && (now.join("\n") === sent.join("\n")) !== unless;
    };
    const update = () => {
      for (const part of form.querySelectorAll("[data-rules]")) part.hidden = !JSON.parse(part.dataset.rules).every(isAsked);
    };
    form.addEventListener("change", update);
    form.addEventListener("reset", () => setTimeout(update));
    addEventListener("pageshow", update);
    update();

    form.addEventListener("submit", (event) => {
      if (event.submitter?.formNoValidate) return;
      const half = [...form.elements].find((one) => one.offsetParent !== null && !one.checkValidity());
      if (half === undefined) return;
      event.preventDefault();
      half.reportValidity();
    });
  };
  const prepareAll = () => document.querySelectorAll("form.answer:not(.scripted)").forEach(prepare);
  prepareAll();
  document.addEventListener("flowrun:changed", prepareAll); // a question that came while the page was open
})();
