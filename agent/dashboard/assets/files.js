// Looking around in what the server holds, now and before, and getting it back.

import { t, h, fill, get, post, button, check, failure, modal, icon, icons, bytes, moment, age, number, announce, unique } from "./lib.js";

const link = (query) => `/files?${new URLSearchParams(query)}`;

export async function show(frame, query) {
	const search = h("input", { type: "search", id: unique(), value: query.get("q") ?? "", autocomplete: "off", placeholder: t("files.search.hint") });
	const form = h("form.row", { role: "search", onsubmit: (e) => {
		e.preventDefault();
		frame.go(search.value.trim() ? link({ q: search.value.trim() }) : "/files");
	} }, h("label.unseen", { for: search.id }, t("files.search")), search, h("button", { type: "submit" }, t("files.search")));
	search.style.flex = "1 1 16rem";
	search.style.width = "auto";
	const box = h("div.stack");
	fill(box, h("p.soft", t("loading")));
	const view = query.has("q") ? searched : query.has("file") ? versions : browsed;
	view(frame, query).then((content) => fill(box, content), (err) => fill(box, failure(err)));
	return [h("h1", t("page.files")), form, box];
}

const kindIcon = (type) => icon(icons[type] ?? icons.other);
const tag = (state) => state !== "there" && h(`span.tag.${state === "deleted" ? "bad" : "warn"}`, t(`files.${state}`));

async function searched(frame, query) {
	const q = query.get("q");
	const found = await get("find", { q }, frame.left);
	announce(t("files.found", { n: found.entries.length }));
	return h("section.card", h("h2", found.entries.length ? t("files.found", { n: found.entries.length + found.more }) : t("files.notfound", { q })),
		found.entries.length > 0 && h("ul.list", found.entries.map((i) => h("li", h("div.line",
			h("span", button(i.name, () => frame.go(link({ file: i.ref })), { kind: "plain" }), tag(i.state)),
			h("span.soft.small.num", `${bytes(i.size)} · ${age(i.time)}`)), h("p.path.small.soft", i.path)))),
		found.more > 0 && h("p.soft", t("files.more", { n: found.more })));
}

async function browsed(frame, query) {
	const at = query.get("at") ?? "", path = query.get("path") ?? "";
	const l = await get("list", { path, at }, frame.left);
	const open = (i) => i.type === "folder" ? frame.go(link({ path: i.ref, ...(at && { at }) })) : frame.go(link({ file: i.ref }));
	const body = h("tbody");
	const deleted = check(t("files.show.deleted"), { onchange: () => draw() });
	const gone = l.entries.filter((i) => i.state === "deleted").length;
	const draw = () => {
		const list = l.entries.filter((i) => i.state !== "deleted" || deleted.input.checked);
		fill(body, list.length ? list.map((i) => h(i.state === "deleted" ? "tr.gone" : "tr",
			h("td.name", button([kindIcon(i.type), path ? i.name : i.path], () => open(i), { kind: "plain" }), " ", tag(i.state)),
			h("td.num", i.type === "folder" ? "" : bytes(i.size)),
			h("td.num.hide-narrow", i.mtime ? moment(i.mtime) : ""),
			h("td.acts",
				button(t("files.versions"), () => frame.go(link({ file: i.ref })), { kind: "plain", label: t("files.versions.of", { name: i.name }) }),
				button(t("files.restore"), () => restore([i], i.state === "deleted" ? before(i.time) : at), { kind: "plain", label: t("files.restore.of", { name: i.name }) }))))
			: h("tr", h("td", { colspan: 4 }, h("span.soft", t("files.empty")))));
	};
	draw();
	const time = h("input", { type: "datetime-local", step: 1, id: unique(), value: at ? local(at) : "", onchange: () => frame.go(link({ ...(path && { path }), ...(time.value && { at: new Date(time.value).toISOString() }) })) });
	time.style.width = "auto";
	return h("section.card", crumbs(frame, l, at),
		h("div.row.between", h("div.row", h("label", { for: time.id }, t("files.at")), time, at && button(t("files.now"), () => frame.go(link(path ? { path } : {})), { kind: "plain" })),
			gone > 0 && deleted.row,
			path && h("div.row", h("a.button", { href: `/timeline?${new URLSearchParams({ path })}` }, t("files.timeline")), button(t("files.restore.folder"), () => restore([l], at), { kind: "main" }))),
		l.damage && h("p.error", l.damage),
		h("table", h("thead", h("tr", h("th", { scope: "col" }, t("files.name")), h("th.num", { scope: "col" }, t("files.size")), h("th.num.hide-narrow", { scope: "col" }, t("files.changed")), h("th", { scope: "col" }, h("span.unseen", t("files.acts"))))), body));
}

function crumbs(frame, l, at) {
	const to = (query) => frame.go(link({ ...query, ...(at && { at }) }));
	return h("nav.crumbs", { "aria-label": t("files.where") }, h("ol",
		h("li", l.path ? button(t("files.all"), () => to({}), { kind: "plain" }) : h("strong", { "aria-current": "page" }, t("files.all"))),
		l.up && h("li", button(l.up.name, () => to({ path: l.up.ref }), { kind: "plain", label: t("files.up", { name: l.up.name }) })),
		l.path && h("li", h("strong", { "aria-current": "page" }, l.name))));
}

async function versions(frame, query) {
	const l = await get("versions", { path: query.get("file") }, frame.left);
	const panel = h("section.card", { hidden: true, "aria-live": "polite" });
	const list = h("ol.list", l.entries.map((v, n) => h("li", h("div.row.between",
		h("div", h("strong.num", moment(v.time)), " ", n === 0 && v.state === "there" && h("span.tag.good", t("files.newest")), " ", tag(v.state), v.fuzzy && h("span.tag.warn", t("files.fuzzy")),
			h("p.soft.small", v.state === "deleted" ? age(v.time) : `${v.type === "folder" ? t("files.folder") : bytes(v.size)} · ${age(v.time)}`)),
		v.state === "there" && h("div.row",
			v.type === "file" && button(t("files.preview"), () => preview(panel, l, v), { label: t("files.preview.of", { time: moment(v.time) }) }),
			v.type === "folder" && button(t("files.open"), () => frame.go(link({ path: l.ref, at: v.time }))),
			button(t("files.restore"), () => restore([l], v.time), { kind: n === 0 ? "" : "main", label: t("files.restore.version", { time: moment(v.time) }) }))))));
	return [h("section.card", crumbs(frame, l, ""), h("h2", t("files.history", { name: l.name })), l.damage && h("p.error", l.damage), list), panel];
}

async function preview(panel, l, v) {
	panel.hidden = false;
	fill(panel, h("h2", l.name), h("p.soft", t("loading")));
	const p = await get("preview", { path: l.ref, seq: v.seq });
	fill(panel, h("header", h("h2", t("files.preview.title", { name: l.name })), h("p.soft.small", moment(v.time))),
		p.kind === "text" && h("pre", { tabindex: 0 }, p.text),
		p.kind === "picture" && h("img.picture", { src: p.address, alt: t("files.preview.alt", { name: l.name, time: moment(v.time) }) }),
		p.kind === "none" && h("p.soft", t("files.preview.none")), p.cut && h("p.soft.small", t("files.preview.cut")));
	panel.scrollIntoView({ block: "nearest" });
}

// before is the last moment before a time.
const before = (time) => {
	const [, head, fraction] = /^(.*:\d\d)(?:\.(\d+))?Z$/.exec(time);
	const ns = BigInt(Date.parse(head + "Z")) * 1000000n + BigInt((fraction ?? "").padEnd(9, "0")) - 1n;
	return `${new Date(Number(ns / 1000000000n) * 1000).toISOString().slice(0, 19)}.${String(ns % 1000000000n).padStart(9, "0")}Z`;
};

// local is a time as an input of date and time takes it.
export const local = (time) => {
	const d = new Date(time);
	return new Date(d - d.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
};

// restore asks where to, and begins.
export function restore(items, at, { rewind = false } = {}) {
	return modal(t("restore.title", { name: items.map((i) => i.name).join(", ") }), (close) => {
		const group = unique();
		const choice = (value, checked) => h("input", { type: "radio", name: group, value, checked, id: unique(), onchange: () => { aside.row.hidden = !over.checked || !rewind; } });
		const beside = choice("beside", !rewind), over = choice("over", rewind);
		const aside = check(t("restore.aside"), { checked: true });
		aside.row.hidden = !rewind;
		const row = (input, title, text) => h("div.choice", input, h("label", { for: input.id }, title, h("span.soft.small", text)));
		return [
			h("p", at ? t("restore.at", { time: moment(at) }) : t("restore.now")),
			h("fieldset.choices", h("legend.unseen", t("restore.where")), row(beside, t("restore.beside"), t("restore.beside.hint")), row(over, t("restore.over"), t("restore.over.hint"))),
			aside.row,
			h("div.ends", button(t("cancel"), () => close()), button(t("restore.go"), async () => {
				await post("restore", { paths: items.map((i) => i.ref), ...(at && { at }), over: over.checked, aside: over.checked && rewind && aside.input.checked });
				announce(t("restore.begun"));
				close();
			}, { kind: "main" })),
		];
	});
}
