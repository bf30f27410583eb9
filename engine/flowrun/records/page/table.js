// The table: only the records of one page are in the document, and a record's texts are read when it is opened.
// Keys: / (search), e (next failure), j and k (next and previous record).
(() => {
  "use strict";
  const PAGE = 100;
  const [FIELD, THREAD, MESSAGE, PART, ARGUMENTS, LESS] = "\ue000\ue001\ue002\ue003\ue004\ue005";
  const ROLES = ["system", "developer", "user", "assistant", "tool"];
  const FACTS = ["flow", "models", "sampling", "tools"];
  const $ = (id) => document.getElementById(id);
  const make = (tag, className = "", text = "") => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== "") made.textContent = text;
    return made;
  };
  const whole = new Intl.NumberFormat("en");
  const real = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
  const part = (tag, role, className, text) => { // a phone shows no table, so what its parts are is said
    const made = make(tag, className, text);
    made.setAttribute("role", role);
    return made;
  };
  const number = { format: (value) => (Number.isInteger(value) ? whole : real).format(value) };

  // --- the records

  const scoreNames = JSON.parse($("scores").textContent);
  const texts = document.getElementsByClassName("of-one");
  const facts = document.getElementsByClassName("of-many");
  const records = [];
  for (const block of document.querySelectorAll("script.index")) {
    for (const [line, row, name, sample, status, error, rounds, read, written, seconds, began, common, scores, gist, masked] of JSON.parse(block.textContent)) {
      records.push({ line, row, name, sample, status, error, rounds, read, written, seconds, began, common, scores, gist, masked, at: records.length });
    }
  }
  const elements = [...texts]; // indexing an HTMLCollection walks the document
  const unfinished = new Set(["waiting", "sleeping", "needs_attention"]);
  const failed = (record) => record.status !== "succeeded" && !unfinished.has(record.status);
  const words = (status) => status.replaceAll("_", " ");
  const textOf = (element) => {
    const first = element.firstChild; // a long text has several nodes
    return first === null ? "" : first.nextSibling === null ? first.data : element.textContent;
  };
  const title = (record) => [
    record.row === null || String(record.row) === record.name ? "" : `row ${record.row}, `,
    record.name === "" ? `line ${record.line}` : record.name,
    record.sample === null ? "" : `, sample ${record.sample}`,
  ].join("");

  // --- the columns

  const tokens = (record) => record.read + record.written;
  const cellOf = (text, className) => (record) => {
    const cell = part("td", "cell", className);
    cell.textContent = text(record);
    return cell;
  };
  const figure = (label, value, written = number.format) => ({
    label,
    value,
    first: "descending",
    cell(record) {
      const found = value(record);
      const cell = part("td", "cell", "figure", found === null || found === undefined ? "" : typeof found === "boolean" ? (found ? "✓" : "✗") : written(found));
      if (typeof found === "boolean") cell.setAttribute("aria-label", `${label}: ${found}`);
      cell.dataset.name = label;
      return cell;
    },
  });
  const columns = [
    { label: "record", value: (record) => record.at, cell: (record) => {
      const cell = part("td", "cell");
      const open = make("button", "open-record", record.name === "" ? `line ${record.line}` : record.name);
      open.type = "button";
      open.setAttribute("aria-haspopup", "dialog");
      cell.append(open);
      return cell;
    } },
    ...(records.some((record) => record.row !== null && String(record.row) !== record.name) ? [figure("row", (record) => record.row, String)] : []),
    ...(records.some((record) => record.sample !== null) ? [figure("sample", (record) => record.sample)] : []),
    { label: "status", value: (record) => record.status, cell: (record) => {
      const cell = part("td", "cell");
      cell.append(make("span", `pill s-${/^\w+$/.test(record.status) ? record.status : ""}`, words(record.status)));
      return cell;
    } },
    ...(records.some((record) => record.error !== "") ? [{ label: "error", value: (record) => record.error || null, cell: cellOf((record) => record.error, "error-name") }] : []),
    ...scoreNames.map((name, place) => figure(name, (record) => record.scores[place] ?? null)),
    figure("rounds", (record) => record.rounds),
    figure("tokens", tokens),
    figure("seconds", (record) => record.seconds),
    { label: "output or error", value: (record) => record.gist || null, cell: cellOf((record) => record.gist, "gist") },
  ];

  // --- what is shown: filtered, sorted, a page of it

  const chosen = { status: null, error: null };
  let sorted = 0; // the column
  let descending = false;
  let shown = records;
  let page = 0;
  let current = null; // the record that was opened or moved to last

  const escaped = (word) => word.replaceAll("<", LESS).replace(/[.*+?^${}()|[\]\\\/]/g, "\\$&");
  const matcher = () => {
    const patterns = $("search").value.split(/\s+/).filter(Boolean).map((word) => new RegExp(escaped(word), "iu"));
    return (record) => {
      if (!patterns.length) return true;
      const names = `${record.name} ${words(record.status)} ${record.error}`;
      const text = textOf(elements[record.at]);
      return patterns.every((pattern) => pattern.test(names) || pattern.test(text));
    };
  };
  const compare = (a, b) => {
    if (typeof a === "string" && typeof b === "string") return a < b ? -1 : a > b ? 1 : 0;
    return Number(a) - Number(b);
  };
  const order = (found) => {
    const { value } = columns[sorted];
    const missing = (one) => one === null || one === undefined;
    return found.map((record) => [value(record), record]).sort(([a, one], [b, other]) => {
      if (missing(a) || missing(b)) return missing(a) - missing(b) || one.at - other.at; // always last
      return (descending ? compare(b, a) : compare(a, b)) || one.at - other.at;
    }).map(([, record]) => record);
  };
  const apply = () => {
    const matches = matcher();
    const found = records.filter((record) =>
      (chosen.status === null || record.status === chosen.status) && (chosen.error === null || record.error === chosen.error) && matches(record));
    shown = order(found);
    page = 0;
    $("clear").hidden = $("search").value === "" && chosen.status === null && chosen.error === null;
    render();
  };

  const summary = () => {
    const parts = [shown.length === records.length ? `${number.format(records.length)} records` : `${number.format(shown.length)} of ${number.format(records.length)} records`];
    scoreNames.forEach((name, place) => {
      let [count, sum] = [0, 0];
      for (const record of shown) {
        const score = record.scores[place] ?? null;
        if (score !== null) [count, sum] = [count + 1, sum + Number(score)];
      }
      if (count) parts.push(`${name}: mean ${number.format(sum / count)}`);
    });
    return parts.join(" · ");
  };

  const render = () => {
    const fragment = document.createDocumentFragment();
    for (const record of shown.slice(page * PAGE, (page + 1) * PAGE)) {
      const line = part("tr", "row", failed(record) ? "failed" : unfinished.has(record.status) ? "open" : "");
      line.dataset.at = record.at;
      line.append(...columns.map((column) => column.cell(record)));
      fragment.append(line);
    }
    $("body").replaceChildren(fragment);
    $("none").hidden = shown.length > 0;
    $("count").textContent = summary();
    const pages = Math.max(Math.ceil(shown.length / PAGE), 1);
    $("page").textContent = `page ${page + 1} of ${pages}`;
    document.querySelector(".pages").hidden = pages === 1;
    $("earlier").disabled = page === 0;
    $("later").disabled = page === pages - 1;
    const failures = shown.filter(failed).length;
    $("next-failure").textContent = `Next failure (${number.format(failures)})`;
    $("next-failure").disabled = $("record-failure").disabled = failures === 0;
    [...$("head").children].forEach((cell, place) => {
      if (place === sorted) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
    $("sort").value = String(sorted);
    $("direction").textContent = descending ? "descending" : "ascending";
  };

  const sortBy = (column, down) => {
    [sorted, descending] = [column, down];
    apply();
  };
  columns.forEach((column, place) => {
    const cell = part("th", "columnheader", column.first ? "figure" : "");
    cell.scope = "col";
    const button = make("button", "", column.label);
    button.type = "button";
    button.addEventListener("click", () => sortBy(place, place === sorted ? !descending : column.first === "descending"));
    cell.append(button);
    $("head").append(cell);
    const option = make("option", "", column.label);
    option.value = String(place);
    $("sort").append(option);
  });
  $("sort").addEventListener("change", () => {
    const place = Number($("sort").value);
    sortBy(place, columns[place].first === "descending");
  });
  $("direction").addEventListener("click", () => sortBy(sorted, !descending));

  // --- filters

  const chips = [];
  const choose = (kind, value) => {
    chosen[kind] = value;
    for (const chip of chips) chip.element.setAttribute("aria-pressed", String(chosen[chip.kind] === chip.value));
    apply();
  };
  const addChips = (place, kind) => {
    const counts = new Map();
    for (const record of records) {
      if (record[kind] !== "") counts.set(record[kind], (counts.get(record[kind]) ?? 0) + 1);
    }
    for (const [value, count] of [...counts].sort((a, b) => b[1] - a[1])) {
      const element = make("button", "", `${kind === "status" ? words(value) : value} ${number.format(count)}`);
      element.type = "button";
      element.setAttribute("aria-pressed", "false");
      element.addEventListener("click", () => choose(kind, chosen[kind] === value ? null : value));
      chips.push({ element, kind, value });
      place.append(element);
    }
  };
  addChips($("statuses"), "status");
  addChips($("errors"), "error");

  let waiting = 0;
  $("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(apply, 120);
  });
  const clear = () => {
    $("search").value = "";
    [chosen.status, chosen.error] = [null, null];
    choose("status", null);
  };
  $("clear").addEventListener("click", () => {
    clear();
    $("search").focus();
  });
  const turn = (to) => {
    page = to;
    current = null;
    render();
    $("records").scrollIntoView({ block: "start" });
  };
  $("earlier").addEventListener("click", () => turn(page - 1));
  $("later").addEventListener("click", () => turn(page + 1));

  // --- moving from record to record

  const lineOf = (record) => $("body").querySelector(`tr[data-at="${record.at}"]`);
  const focus = (record) => {
    const place = shown.indexOf(record);
    if (place < 0) return;
    if (Math.floor(place / PAGE) !== page) {
      page = Math.floor(place / PAGE);
      render();
    }
    const line = lineOf(record);
    line.querySelector(".open-record").focus({ preventScroll: true });
    line.scrollIntoView({ block: "center" });
  };
  const moveTo = (record) => {
    if (record === undefined) return;
    current = record;
    if ($("record").open) show(record);
    else focus(record);
  };
  // Return the place of the record that has the focus, or else of the last one; or the place before the page.
  const here = () => {
    const line = $("record").open ? null : document.activeElement?.closest?.("tr[data-at]");
    const place = line ? shown.indexOf(records[Number(line.dataset.at)]) : shown.indexOf(current);
    return place < 0 ? page * PAGE - 1 : place;
  };
  const nextFailure = () => {
    const from = here();
    moveTo(shown.find((record, place) => place > from && failed(record)) ?? shown.find(failed));
  };
  $("next-failure").addEventListener("click", nextFailure);

  // --- one record

  const folded = (text, className) => {
    const long = text.length > 1400 || text.split("\n", 16).length > 15;
    if (!long) return make("div", className, text);
    const fold = make("details", "fold");
    fold.append(make("summary", "", `${text.slice(0, 160).replace(/\s+/g, " ")}… `));
    fold.firstChild.append(make("span", "faint small", `${number.format(text.length)} characters`));
    fold.append(make("div", className, text));
    return fold;
  };
  const section = (heading, ...content) => {
    const made = make("section");
    made.append(make("h3", "", heading), ...content);
    return made;
  };
  const value = (heading, text) => {
    const card = make("div", "part");
    card.append(folded(text, /^\s*[[{]/.test(text) ? "text mono" : "text"));
    return section(heading, card);
  };
  const message = (written) => {
    const role = ROLES[written.charCodeAt(0) - 0xe010];
    const [content, reasoning, name, ...calls] = written.slice(1).split(PART);
    const made = make("div", `message message-${role}`);
    const what = make("div", "what");
    made.append(make("span", "who", role), what);
    if (name) what.append(make("span", "faint small", name));
    if (reasoning) {
      const fold = make("details", "fold");
      fold.append(make("summary", "", `reasoning, ${number.format(reasoning.length)} characters`), make("div", "text faint", reasoning));
      what.append(fold);
    }
    if (content || !calls.length) what.append(content ? folded(content, "text") : make("div", "text faint", "empty"));
    for (const call of calls) {
      const [called, given] = call.split(ARGUMENTS);
      const wish = make("div", "wish");
      wish.append(make("span", "call-name", called), folded(given, "text mono"));
      what.append(wish);
    }
    return made;
  };
  const threadsOf = (written) => {
    if (written === "") return [section("messages", make("p", "faint", "There are none: flowrun batch --messages keeps them."))];
    if (written.startsWith(PART)) return [section("messages", make("p", "failure", written.slice(1)))];
    return written.slice(1).split(THREAD).map((thread) => {
      const [name, ...messages] = thread.split(MESSAGE);
      const list = make("div", "part thread");
      list.append(...messages.map(message));
      return section(name === "" ? "messages" : `messages of the thread ${name}`, list);
    });
  };
  const show = (record) => {
    const parts = textOf(elements[record.at]).replaceAll(LESS, "<").split(FIELD);
    const [error, state, inputs, others, output, asks, doubtful, path, scores, reasons, beside, written] = parts;
    $("record-title").replaceChildren(title(record), " ", make("span", `pill s-${/^\w+$/.test(record.status) ? record.status : ""}`, words(record.status)));
    const body = $("record-body");
    const seconds = record.seconds === null ? [] : [`${number.format(record.seconds)} s`];
    const list = make("ul", "facts");
    for (const fact of [...(record.began ? [record.began] : []), ...seconds, `${number.format(record.rounds)} rounds`,
      `${number.format(record.read)} + ${number.format(record.written)} tokens`, `line ${record.line}`,
      ...(record.masked ? ["secrets are replaced in it"] : [])]) list.append(make("li", "", fact));
    body.replaceChildren(list);
    if (record.error) {
      const failure = make("p", "failure");
      failure.append(make("strong", "", record.error), " ", `${state ? `in state ${state}: ` : ""}${error}`);
      body.append(section("error", failure));
    }
    for (const [heading, text] of [["inputs", inputs], ["other columns", others], ["output", output], ["other version", beside], ["scores", scores], ["reasons", reasons],
      ["waits for", asks], ["calls in doubt", doubtful]]) if (text) body.append(value(heading, text));
    body.append(...threadsOf(written));
    if (path) body.append(value("path", path.replaceAll("\n", " → ")));
    const common = textOf(facts[record.common]).replaceAll(LESS, "<").split(FIELD);
    const fold = make("details", "fold");
    fold.append(make("summary", "", "flow, models, sampling, tools"));
    FACTS.forEach((name, place) => { if (common[place]) fold.append(section(name, make("div", "text mono", common[place]))); });
    if (fold.childElementCount > 1) body.append(fold);
    current = record;
    if (!$("record").open) $("record").showModal();
    $("record").scrollTop = 0;
    $("record-title").focus({ preventScroll: true });
    history.replaceState(null, "", `#record-${record.at + 1}`);
  };
  const neighbour = (step) => {
    const at = here();
    return shown[Math.min(Math.max(at + step, 0), shown.length - 1)];
  };
  $("body").addEventListener("click", (event) => {
    const line = event.target.closest("tr[data-at]");
    if (line !== null && getSelection().isCollapsed) show(records[Number(line.dataset.at)]);
  });
  $("record-close").addEventListener("click", () => $("record").close());
  $("record").addEventListener("click", (event) => { if (event.target === $("record")) $("record").close(); });
  $("record").addEventListener("close", () => {
    history.replaceState(null, "", "#");
    if (current !== null) focus(current);
  });
  $("record-before").addEventListener("click", () => moveTo(neighbour(-1)));
  $("record-after").addEventListener("click", () => moveTo(neighbour(1)));
  $("record-failure").addEventListener("click", nextFailure);

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === $("search")) {
      if (event.key === "Escape") clear();
      if (event.key === "Enter" && shown.length) {
        clearTimeout(waiting);
        apply();
        moveTo(shown[0]);
      }
      return;
    }
    if (event.target.matches?.("select, input")) return;
    if (event.key === "e") nextFailure();
    if (event.key === "j") moveTo(neighbour(1));
    if (event.key === "k") moveTo(neighbour(-1));
    if (event.key === "/" && !$("record").open) {
      event.preventDefault();
      $("search").focus();
    }
  });

  const follow = () => {
    const found = /^#record-(\d+)$/.exec(location.hash);
    const record = found === null ? undefined : records[Number(found[1]) - 1];
    if (record !== undefined) show(record);
  };
  addEventListener("hashchange", follow);

  const total = (of) => records.reduce((sum, record) => sum + of(record), 0);
  for (const fact of [`${number.format(records.length)} records`, `${number.format(records.filter(failed).length)} failed`,
    `${number.format(total((record) => record.rounds))} rounds`, `${number.format(total((record) => record.read))} + ${number.format(total((record) => record.written))} tokens`]) {
    $("facts").append(make("li", "", fact));
  }
  apply();
  follow();
})();
