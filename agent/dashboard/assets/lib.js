// What all pages share: texts, asking the dashboard, making elements, telling.

const texts = JSON.parse(document.getElementById("texts").textContent);

// t is the text of a key, with {names} filled in from values; of two texts divided by
// "|" the first is for n = 1.
export function t(key, values = {}) {
	let text = texts[key];
	if (text === undefined) throw new Error(`there is no text "${key}"`);
	if ("n" in values && text.includes("|")) text = text.split("|")[values.n === 1 ? 0 : 1];
	return text.replace(/\{(\w+)\}/g, (_, name) => name === "n" ? number(values.n) : values[name]);
}
export const has = (key) => key in texts;

export const locale = navigator.language; // for numbers and dates
export const number = (n) => new Intl.NumberFormat(locale).format(n);
export function bytes(n) {
	let unit = 0;
	for (; n >= 1000 && unit < 5; unit++) n /= 1000;
	return `${new Intl.NumberFormat(locale, { maximumFractionDigits: unit && n < 100 ? 1 : 0 }).format(n)} ${["B", "kB", "MB", "GB", "TB", "PB"][unit]}`;
}
export const moment = (time) => new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "medium" }).format(new Date(time));
export function age(time) {
	const s = Math.max(0, Math.round((Date.now() - new Date(time)) / 1000));
	if (s < 2) return t("age.now");
	if (s < 60) return t("age.seconds", { n: s });
	if (s < 3600) return t("age.minutes", { n: Math.floor(s / 60) });
	if (s < 48 * 3600) return t("age.hours", { n: Math.floor(s / 3600) });
	return t("age.days", { n: Math.floor(s / 86400) });
}
export function span(seconds) {
	if (seconds < 60) return t("span.seconds", { n: seconds });
	if (seconds < 3600) return t("span.minutes", { n: Math.round(seconds / 60) });
	return t("span.hours", { n: Math.round(seconds / 3600) });
}

// The key came in the part of the address that is never sent; see guard.go.
const given = new URLSearchParams(location.hash.slice(1));
if (given.has("key")) {
	localStorage.setItem("backstay-key", given.get("key"));
	history.replaceState(null, "", location.pathname + location.search);
}
export const invitation = given.get("invitation") ?? new URLSearchParams(location.search).get("invitation") ?? "";

async function ask(path, options = {}) {
	let answer;
	try {
		answer = await fetch(path, { ...options, headers: { ...options.headers, "Backstay-Key": localStorage.getItem("backstay-key") ?? "" } });
	} catch (err) {
		if (options.signal?.aborted) throw err;
		throw new Error(t("ended"));
	}
	if (answer.ok) return answer;
	if (answer.status === 403) throw new Error(t("locked"));
	let text = answer.statusText;
	try {
		text = (await answer.json()).error;
	} catch { /* it was no JSON: the status has to do */ }
	throw new Error(text);
}
const address = (name, query = {}) => {
	const q = new URLSearchParams(Object.entries(query).filter(([, v]) => v !== "" && v !== null && v !== undefined));
	return `/api/${name}${q.size ? `?${q}` : ""}`;
};
export const get = async (name, query, signal) => (await ask(address(name, query), { signal })).json();
export const post = async (name, body = {}, signal) =>
	(await ask(address(name), { method: "POST", signal, body: JSON.stringify(body), headers: { "Content-Type": "application/json" } })).json();
export const file = async (name) => (await ask(address(name))).blob();

async function* lines(answer, end) {
	const decoder = new TextDecoder();
	let rest = "";
	for (const reader = answer.body.getReader(); ;) {
		const { value, done } = await reader.read();
		if (done) return;
		const parts = (rest + decoder.decode(value, { stream: true })).split(end);
		rest = parts.pop();
		yield* parts;
	}
}
// counted calls f with each line of an answer that counts for a while.
export async function counted(name, query, signal, f) {
	for await (const line of lines(await ask(address(name, query), { signal }), "\n")) f(JSON.parse(line));
}
// follow calls f with each event, until the stream ends.
export async function follow(name, f) {
	for await (const event of lines(await ask(address(name)), "\n\n")) {
		if (event.startsWith("data: ")) f(JSON.parse(event.slice(6)));
	}
}

const svgNames = new Set(["svg", "path", "rect", "circle", "line", "text", "g", "title"]);
// h makes an element: h("p.soft", {id: "x"}, "text", child, …). A property that begins
// with "on" is a listener.
export function h(name, props, ...children) {
	if (typeof props !== "object" || props === null || props instanceof Node || Array.isArray(props)) {
		children.unshift(props);
		props = {};
	}
	const [tag, ...classes] = name.split(".");
	const e = svgNames.has(tag) && tag !== "title" ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
	if (classes.length) e.setAttribute("class", classes.join(" "));
	for (const [key, value] of Object.entries(props)) {
		if (value === undefined || value === null || value === false) continue;
		if (key.startsWith("on")) e.addEventListener(key.slice(2), value);
		else if (key === "value") e.value = value;
		else e.setAttribute(key, value === true ? "" : value);
	}
	e.append(...children.flat(9).filter((c) => c !== null && c !== undefined && c !== false));
	return e;
}
export const fill = (e, ...children) => e.replaceChildren(...children.flat(9).filter((c) => c !== null && c !== undefined && c !== false));

// A button says what it does while it does it, and shows what went wrong beside it.
export function button(text, does, { kind = "", label, ...props } = {}) {
	const b = h(`button${kind ? "." + kind : ""}`, { type: "button", "aria-label": label, ...props, onclick: async () => {
		if (b.getAttribute("aria-busy")) return;
		b.setAttribute("aria-busy", "true");
		b.parentElement?.querySelector(":scope > .error")?.remove();
		try {
			await does(b);
		} catch (err) {
			b.after(failure(err));
		} finally {
			b.removeAttribute("aria-busy");
		}
	} }, text);
	return b;
}
export const failure = (err) => h("p.error", { role: "alert" }, err.message);

const live = document.getElementById("live");
// announce tells who listens instead of looking.
export function announce(text) {
	live.textContent = "";
	setTimeout(() => { live.textContent = text; }, 50);
}

let made = 0;
export const unique = () => `e${++made}`;
export function field(label, input, hint) {
	input.id ||= unique();
	const about = hint ? h("p.hint", { id: unique() }, hint) : null;
	if (about) input.setAttribute("aria-describedby", about.id);
	return h("div.field", h("label", { for: input.id }, label), input, about);
}
export function check(label, props) {
	const input = h("input", { type: "checkbox", id: unique(), ...props });
	return { input, row: h("div.check", input, h("label", { for: input.id }, label)) };
}

// modal shows a dialog and returns what closed it; build gets close(value).
export function modal(title, build) {
	return new Promise((resolve) => {
		const heading = h("h2", { id: unique() }, title);
		const d = h("dialog", { "aria-labelledby": heading.id, onclose: () => { d.remove(); resolve(d.result); } });
		const close = (value) => { d.result = value; d.close(); };
		d.append(h("div", heading, ...[build(close)].flat()));
		document.body.append(d);
		d.showModal();
	});
}
export const confirm = (title, text, yes, danger) => modal(title, (close) => [
	h("p", text),
	h("div.ends", button(t("cancel"), () => close(false)), button(yes, () => close(true), { kind: danger ? "danger" : "main" })),
]);

// pickFolder lets a person choose a folder of this machine.
export const pickFolder = () => modal(t("pick.title"), (close) => {
	const where = h("p.path"), list = h("div.folders", { tabindex: "-1" }), bad = h("div");
	let here;
	async function show(ref) {
		try {
			here = await get("browse", { path: ref });
		} catch (err) {
			fill(bad, failure(err));
			return;
		}
		fill(bad);
		where.textContent = here.path;
		fill(list,
			here.up && button(`↑ ${t("pick.up")}`, () => show(here.up.ref)),
			here.folders.map((f) => button(f.name, () => show(f.ref))));
		list.focus();
	}
	show("");
	return [where, list, bad, h("div.ends", button(t("cancel"), () => close(null)), button(t("pick.choose"), () => close(here), { kind: "main" }))];
});

// command is a line for a terminal.
export const command = (text) => h("div.command", h("code", text), button(t("copy"), async (b) => {
	await copy(text);
	b.textContent = t("copied");
}, { kind: "plain", label: t("copy.command", { command: text }) }));

export async function copy(text) {
	await navigator.clipboard.writeText(text);
	announce(t("copied"));
}

// Every state has a shape of its own, so that nothing rests on colour alone.
const shapes = {
	protected: ["good", "M5 12.500l4.500 4.500L19 7"],
	working: ["wait", "M4 12h15M13 6l6 6-6 6"],
	first_pass: ["wait", "M12 3a9 9 0 1 0 9 9h-9z"],
	paused: ["plain", "M8 5v14M16 5v14"],
	offline: ["plain", "M5 12h.01M12 12h.01M19 12h.01"],
	attention: ["warn", "M12 4 21.500 20h-19zM12 10v4M12 17h.01"],
	failing: ["bad", "M6 6l12 12M18 6 6 18"],
	alarm: ["bad", "M12 3l8 3v6c0 5-3.300 8-8 10-4.700-2-8-5-8-10V6zM12 8v5M12 16.500h.01"],
	not_set_up: ["plain", "M12 3l8 3v6c0 5-3.300 8-8 10-4.700-2-8-5-8-10V6z"],
};
export const tone = (state) => (shapes[state] ?? shapes.attention)[0];
export const shape = (state) => icon((shapes[state] ?? shapes.attention)[1]);
export const icon = (path) => h("svg", { viewBox: "0 0 24 24", fill: "none", stroke: "currentColor", "stroke-width": "2.2", "stroke-linecap": "round", "stroke-linejoin": "round", "aria-hidden": "true" }, h("path", { d: path }));
export const icons = {
	folder: "M3 6.500a1.500 1.500 0 0 1 1.500-1.500H9l2 2.500h8.500A1.500 1.500 0 0 1 21 9v8.500a1.500 1.500 0 0 1-1.500 1.500h-15A1.500 1.500 0 0 1 3 17.500z",
	file: "M6 3h8l4 4v14H6zM14 3v4h4",
	link: "M10 14a4 4 0 0 0 6 .500l3-3a4 4 0 0 0-5.700-5.700L12 7M14 10a4 4 0 0 0-6-.500l-3 3a4 4 0 0 0 5.700 5.700L12 17",
	other: "M12 5v.01M12 12v.01M12 19v.01",
};
