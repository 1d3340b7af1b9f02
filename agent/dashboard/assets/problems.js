// Everything that is not protected, each with its reason and what to do.

import { t, h, fill, get, post, button, failure, announce } from "./lib.js";

export async function show(frame) {
	const list = h("div"), lead = h("p.lead"), acts = h("div.row");
	let seen = null;
	const load = async () => {
		try {
			draw(await get("problems", {}, frame.left));
		} catch (err) {
			fill(list, failure(err));
		}
	};
	const draw = (problems) => {
		problems ??= [];
		lead.textContent = problems.length ? t("problems.lead", { n: problems.length }) : t("problems.none");
		fill(list, problems.length > 0 && h("ul.list.card", problems.map((p) => h("li",
			p.path && h("p.path", h("strong", p.path)),
			h("p", capital(p.reason)),
			h("p.soft.small", h("strong", t("problems.fix")), " ", p.fix)))));
	};
	frame.onState((s) => {
		const now = JSON.stringify([s.agent, s.state, s.status?.problems]);
		if (now === seen) return;
		seen = now;
		fill(acts, s.state === "alarm" && button(t("problems.acknowledge"), async () => {
			await post("acknowledge");
			announce(t("problems.acknowledged"));
			await load();
		}, { kind: "main" }), s.kit_pending && h("a.button", { href: "/kit" }, t("kit.notice.go")));
		load();
	});
	return [h("h1", t("page.problems")), lead, list, acts];
}
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
