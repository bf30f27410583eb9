// Follows the journal while the page is visible: the server says that something has changed, this asks for the page
// anew and replaces what differs. What a person has opened, typed or focused stays; the page is whole without this.
(() => {
  "use strict";
  const { body } = document;
  const PAUSE = 700; // milliseconds between two requests for the page, and at least four times what one takes
  let source = null;
  let [busy, again] = [false, false];

  // --- a tree becomes another one, with as few changes as there are

  const keyOf = (node) => {
    if (node.nodeType !== Node.ELEMENT_NODE) return "";
    return node.id || node.dataset?.key || (node.matches("li") ? node.firstElementChild?.id : "") || "";
  };
  const isOwn = (node) => node.nodeType === Node.ELEMENT_NODE && node.dataset?.own !== undefined;
  const isLike = (one, other) => one.nodeType === other.nodeType && one.nodeName === other.nodeName;
  const insert = (parent, node, before) => parent.insertBefore(document.importNode(node, true), before);

  const becomeAttributes = (old, next) => {
    for (const { name } of [...old.attributes]) {
      if (!next.hasAttribute(name) && !["open", "hidden"].includes(name)) old.removeAttribute(name);
    }
    for (const { name, value } of next.attributes) {
      if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
  };

  const become = (old, next) => {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== next.data) old.data = next.data;
      return;
    }
    if (old.isEqualNode(next) || (old.dataset?.keep !== undefined && next.dataset?.keep !== undefined)) return;
    if (old.matches("svg, script, style, noscript")) {
      if (old.matches("svg")) old.replaceWith(document.importNode(next, true));
      return;
    }
    becomeAttributes(old, next);
    becomeChildren(old, next);
  };

  const becomeChildren = (old, next) => {
    const wanted = [...next.childNodes];
    const keys = new Set(wanted.map(keyOf).filter(Boolean));
    const known = new Map([...old.children].filter(keyOf).map((child) => [keyOf(child), child]));
    let at = old.firstChild;
    const skip = () => {
      while (at !== null && (isOwn(at) || (keyOf(at) && !keys.has(keyOf(at))))) {
        const gone = at;
        at = at.nextSibling;
        if (!isOwn(gone)) gone.remove();
      }
    };
    const find = (node) => {
      if (keyOf(node)) return known.get(keyOf(node)) ?? null;
      for (let one = at; one !== null && !keyOf(one); one = one.nextSibling) {
        if (!isOwn(one) && isLike(one, node)) return one;
        if (node.nodeType !== Node.ELEMENT_NODE) return null;
      }
      return null;
    };
    const isNext = (node) => {
      for (let one = at; one !== node; one = one.nextSibling) {
        if (one === null || keys.has(keyOf(one))) return false;
      }
      return true;
    };
    for (const node of wanted) {
      skip();
      const found = find(node);
      if (found === null || !isLike(found, node)) {
        insert(old, node, at);
        continue;
      }
      if (found !== at && isNext(found)) {
        while (at !== found) {
          const gone = at;
          at = at.nextSibling;
          if (!isOwn(gone)) gone.remove();
        }
      }
      if (found === at) at = at.nextSibling;
      else old.insertBefore(found, at); // this one has moved, and loses the focus if it has it
      become(found, node);
    }
    while (at !== null) {
      const rest = at;
      at = at.nextSibling;
      if (!isOwn(rest)) rest.remove();
    }
  };

  // --- asking for the page

  const take = (next) => {
    const said = body.dataset.announce;
    becomeAttributes(body, next.body);
    if (next.body.dataset.changes === undefined) stop();
    becomeChildren(body, next.body);
    document.title = next.title;
    if (body.dataset.announce !== said) document.querySelector("#announce").textContent = body.dataset.announce ?? "";
    document.dispatchEvent(new CustomEvent("flowrun:changed"));
  };

  const ask = async () => {
    const response = await fetch(location.href, { cache: "no-store", headers: { accept: "text/html" } });
    if (!response.ok || !response.headers.get("content-type")?.startsWith("text/html")) return;
    const text = await response.text();
    if (!document.hidden || source === null) take(new DOMParser().parseFromString(text, "text/html"));
  };

  const refresh = async () => {
    again = true;
    if (busy) return;
    busy = true;
    while (again) {
      again = false;
      const began = performance.now();
      try {
        await ask();
      } catch {
        break; // the server is away: its stream says when it is there again
      }
      const pause = Math.max(PAUSE, 4 * (performance.now() - began));
      await new Promise((resolve) => { setTimeout(resolve, pause); });
    }
    busy = false;
  };

  // --- the stream of changes: closed while nobody looks, since a browser opens few of them

  const offline = document.createElement("p");
  offline.id = "offline";
  offline.className = "notice n-paused";
  offline.dataset.own = "";
  offline.setAttribute("role", "status");
  offline.textContent = "The server is away: this page may be old.";

  const stop = () => {
    source?.close();
    source = null;
    offline.remove();
  };
  const start = () => {
    const address = body.dataset.changes;
    if (source !== null || document.hidden || address === undefined) return;
    source = new EventSource(`${address}?since=${encodeURIComponent(body.dataset.version ?? "")}`);
    source.addEventListener("open", () => offline.remove());
    source.addEventListener("changed", refresh);
    source.addEventListener("error", () => body.append(offline));
  };
  document.addEventListener("visibilitychange", () => { document.hidden ? stop() : start(); });
  addEventListener("pagehide", stop);
  addEventListener("pageshow", start);
  start();
})();
