// What is protected, and what of it is left out.

import { t, h, fill, get, post, counted, button, field, failure, confirm, pickFolder, announce, number, bytes } from "./lib.js";

export async function show(frame) {
	const folders = h("ul.list"), rules = h("ul.list"), where = h("p.small.soft");
	const load = async () => {
		const v = await get("folders");
		fill(where, t("folders.file"), " ", h("span.path", v.file));
		fill(folders, v.folders.length ? v.folders.map((f) => h("li", h("div.row.between", h("span.path", f.path),
			button(t("remove"), async () => {
				if (!await confirm(t("folders.remove.title"), t("folders.remove.text", { path: f.path }), t("folders.remove.yes"), true)) return;
				await post("folders/remove", { path: f.ref });
				announce(t("folders.removed"));
				await load();
			}, { kind: "plain.danger", label: t("folders.remove.label", { path: f.path }) })))) : h("li", t("folders.none")));
		fill(rules, v.excludes.length ? v.excludes.map((p) => h("li", h("div.row.between", h("code", p),
			button(t("remove"), async () => {
				if (!await drop(frame, p)) return;
				await post("excludes/remove", { pattern: p });
				announce(t("rules.removed"));
				await load();
			}, { kind: "plain.danger", label: t("rules.remove.label", { pattern: p }) })))) : h("li.soft", t("rules.none")));
	};
	await load();

	const pattern = h("input", { type: "text", autocomplete: "off", spellcheck: "false", placeholder: "*.tmp" });
	const effect = h("div", { "aria-live": "polite" }), bad = h("div");
	const save = h("button.main", { type: "submit", disabled: true }, t("rules.save"));
	let stop = new AbortController(), timer;
	pattern.addEventListener("input", () => {
		clearTimeout(timer);
		stop.abort();
		save.disabled = true;
		fill(effect);
		fill(bad);
		if (!pattern.value.trim()) return;
		stop = new AbortController();
		const signal = AbortSignal.any([stop.signal, frame.left]);
		timer = setTimeout(() => preview(effect, { pattern: pattern.value }, signal, "rules.effect").then(() => { save.disabled = false; }, (err) => {
			if (!signal.aborted) fill(bad, failure(err));
		}), 300);
	});
	const form = h("form.choices", { onsubmit: async (e) => {
		e.preventDefault();
		try {
			await post("excludes/add", { pattern: pattern.value });
			pattern.value = "";
			save.disabled = true;
			fill(effect);
			announce(t("rules.saved"));
			await load();
		} catch (err) {
			fill(bad, failure(err));
		}
	} }, field(t("rules.new"), pattern, t("rules.hint")), effect, bad, h("div.row", save));

	return [h("h1", t("page.folders")),
		h("section.card", h("header", h("h2", t("folders.title"))), folders, h("div.row", button(t("folders.add"), async () => {
			const f = await pickFolder();
			if (!f) return;
			await post("folders/add", { path: f.ref });
			announce(t("folders.added"));
			await load();
		}, { kind: "main" })), where),
		h("section.card", h("header", h("h2", t("rules.title"))), h("p.soft", t("rules.lead")), rules, form)];
}

// preview shows what a pattern matches, as it is counted.
const preview = (box, query, signal, key) => counted("excludes/preview", query, signal, (e) => fill(box,
	h("p", h("strong", t(key, { n: e.files, bytes: bytes(e.bytes) })), e.done ? "" : " …"),
	e.paths.length > 0 && h("details", { open: box.querySelector("details")?.open }, h("summary", t("rules.paths", { n: e.paths.length })), h("ul.small", e.paths.map((p) => h("li.path", p))))));

// drop asks whether a rule is to go, saying what is protected then.
function drop(frame, pattern) {
	const effect = h("div", { "aria-live": "polite" });
	preview(effect, { pattern, remove: "1" }, frame.left, "rules.back").catch((err) => fill(effect, failure(err)));
	return confirm(t("rules.remove.title", { pattern }), effect, t("rules.remove.yes"));
}
