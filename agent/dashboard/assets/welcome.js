// Setting up: an invitation, folders, Start.

import { t, h, fill, get, post, counted, button, field, failure, pickFolder, unique, number, bytes, invitation, announce } from "./lib.js";

export async function show(frame) {
	if (frame.state.setup === "pairing") return member();
	const setup = await get("suggestions");
	const invite = h("textarea", { rows: 3, required: true, spellcheck: "false", autocomplete: "off", placeholder: "backstay:…", value: invitation });
	const name = h("input", { type: "text", required: true, value: setup.machine, autocomplete: "off" });
	const words = h("textarea", { rows: 3, spellcheck: "false", autocomplete: "off" });
	const list = h("div.choices"), total = h("p.num", { role: "status" }), bad = h("div");
	const chosen = new Map();

	const add = (folder, checked) => {
		if (chosen.has(folder.ref)) return;
		const box = h("input", { type: "checkbox", id: unique(), checked, onchange: sum });
		const size = h("span.soft.small.num", t("welcome.counting")), gaps = h("details", { hidden: true });
		const one = { folder, box, result: null };
		chosen.set(folder.ref, one);
		list.append(h("div.choice", box, h("label", { for: box.id }, folder.name, h("span.path.soft", folder.path)), size, gaps));
		counted("measure", { path: folder.ref }, frame.left, (m) => {
			one.result = m;
			size.textContent = `${t("files", { n: m.files })}, ${bytes(m.bytes)}${m.done ? "" : " …"}`;
			const missing = m.unreadable + m.special;
			if (m.done && missing > 0) {
				gaps.hidden = false;
				fill(gaps, h("summary", t("welcome.missing", { n: missing })), h("ul.list",
					m.special > 0 && h("li", t("welcome.special", { n: m.special })),
					m.problems.map((p) => h("li", h("span.path", p.path), h("span.soft", `${p.reason}; ${p.fix}`)))));
			}
			sum();
		}).catch((err) => { if (!frame.left.aborted) size.textContent = err.message; });
	};
	function sum() {
		const picked = [...chosen.values()].filter((o) => o.box.checked);
		const add = (key) => picked.reduce((n, o) => n + (o.result?.[key] ?? 0), 0);
		total.textContent = picked.length ? t("welcome.total", { files: number(add("files")), bytes: bytes(add("bytes")) }) : t("welcome.none");
	}
	for (const f of setup.folders) add(f, f.chosen);
	sum();

	const start = h("button.main", { type: "submit" }, t("welcome.start"));
	const form = h("form", { novalidate: true, onsubmit: async (e) => {
		e.preventDefault();
		fill(bad);
		start.disabled = true;
		start.textContent = t("welcome.starting");
		try {
			const done = await post("join", {
				invitation: invite.value, name: name.value, words: words.value,
				folders: [...chosen.values()].filter((o) => o.box.checked).map((o) => o.folder.ref),
			});
			announce(t("welcome.joined", { server: done.server }));
			if (done.needs_member) location.assign("/welcome");
			else location.assign((await get("state")).kit_pending ? "/kit" : "/");
		} catch (err) {
			fill(bad, failure(err));
			start.disabled = false;
			start.textContent = t("welcome.start");
		}
	} },
	h("section.card", h("h2", h("span", "1"), t("welcome.invitation")), field(t("welcome.invitation.label"), invite, t("welcome.invitation.hint"))),
	h("section.card", h("fieldset.field", h("legend", h("h2", h("span", "2"), t("welcome.folders"))), list),
		h("div.row.between", button(t("welcome.another"), async () => {
			const f = await pickFolder();
			if (f) add(f, true);
			sum();
		}), total)),
	h("section.card", h("h2", h("span", "3"), t("welcome.go")), bad, h("div.row", start),
		h("details", h("summary", t("welcome.more")), h("div.choices", field(t("welcome.name"), name, t("welcome.name.hint")), field(t("welcome.words"), words, t("welcome.words.hint"))))));
	form.className = "steps stack";
	return [h("h1", t("welcome.title")), h("p.lead", t("welcome.lead")), form];
}

// member is for a machine that is enrolled where another has made the vault.
function member() {
	const code = h("input", { type: "text", required: true, autocomplete: "off", spellcheck: "false", placeholder: "XXXX-XXXX-XXXX-XXXX-XXXX-XXXX" }), bad = h("div");
	const join = h("button.main", { type: "submit" }, t("pair.join"));
	let stop = new AbortController();
	return [h("h1", t("pair.title")), h("p.lead", t("pair.lead")),
		h("form.card", { novalidate: true, onsubmit: async (e) => {
			e.preventDefault();
			// A code that was mistyped is waited for, too: another one may be tried.
			stop.abort();
			stop = new AbortController();
			const { signal } = stop;
			fill(bad, h("p.soft", { role: "status" }, t("pairing.waiting")));
			try {
				await post("pair", { code: code.value }, signal);
				location.assign("/");
			} catch (err) {
				if (!signal.aborted) fill(bad, failure(err));
			}
		} }, field(t("pair.code"), code, t("pair.hint")), bad, h("div.row", join))];
}
