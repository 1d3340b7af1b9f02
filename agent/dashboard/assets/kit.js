// The recovery kit: shown until a person has shown to have it elsewhere.

import { t, h, fill, get, post, file, button, field, failure, announce, moment } from "./lib.js";

export async function show(frame) {
	const kit = await get("kit");
	if (!kit.pending) return [h("h1", t("page.kit")), h("section.card", h("p", t("kit.away")), h("p.soft", t("kit.lost")), h("div.row", h("a.button", { href: "/" }, t("kit.overview"))))];
	const box = h("div.stack");
	const shown = () => fill(box,
		h("section.card.kit-sheet",
			h("div.kit",
				h("div.field", h("h2", t("kit.words")), h("ol.words", kit.words.map((w) => h("li", w)))),
				h("figure.field", h("div.qr", h("svg", { viewBox: `0 0 ${kit.qr.size} ${kit.qr.size}`, role: "img", "aria-label": t("kit.qr"), "shape-rendering": "crispEdges" }, h("path", { d: kit.qr.path, fill: "#000" }))), h("figcaption.small.soft", t("kit.qr.hint")))),
			h("dl.pairs", [["kit.server", kit.server], ["kit.pin", kit.pin], ["kit.vault", kit.vault]].map(([name, value]) => [h("dt", t(name)), h("dd", value)])),
			h("p.small.soft", t("kit.use"), " ", h("code", "agent recover --phrase-file KIT --to FOLDER")),
			h("div.row.no-print",
				button(t("kit.print"), () => print(), { kind: "main" }),
				button(t("kit.save"), save))),
		h("section.card.no-print", h("h2", t("kit.done.title")), h("p", t("kit.done.text")),
			h("div.row", button(t("kit.done"), () => asked(), { kind: "main" }), !kit.due && button(t("kit.later"), () => frame.go("/"), { kind: "plain" })),
			h("p.small.soft", kit.due ? t("kit.due", { since: moment(kit.since) }) : t("kit.later.hint"))));
	const asked = () => {
		const inputs = kit.ask.map(() => h("input", { type: "text", autocomplete: "off", autocapitalize: "none", spellcheck: "false", required: true }));
		const bad = h("div");
		const form = h("form.card", { onsubmit: async (e) => {
			e.preventDefault();
			try {
				await post("kit/confirm", { words: inputs.map((i) => i.value) });
			} catch (err) {
				fill(bad, failure(err));
				return;
			}
			announce(t("kit.confirmed"));
			frame.go("/");
		} }, h("h2", t("kit.ask.title")), h("p", t("kit.ask.text")),
		h("div.two", inputs.map((input, i) => field(t("kit.word", { n: kit.ask[i] }), input))), bad,
		h("div.row", h("button.main", { type: "submit" }, t("kit.confirm")), button(t("kit.back"), shown, { kind: "plain" })));
		fill(box, form);
		inputs[0].focus();
	};
	async function save() {
		const url = URL.createObjectURL(await file("kit/file"));
		const a = h("a", { href: url, download: "backstay-recovery-kit.txt" });
		a.click();
		setTimeout(() => URL.revokeObjectURL(url), 10000);
		announce(t("kit.saved"));
	}
	shown();
	return [h("h1", t("page.kit")), h("p.lead", t("kit.lead")), box];
}
