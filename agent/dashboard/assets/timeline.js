// A folder moved back to any second, and what has happened to it since.

import { t, h, fill, get, button, field, failure, number, bytes, moment, age, announce } from "./lib.js";
import { restore, local } from "./files.js";

export async function show(frame, query) {
	const [roots, v] = await Promise.all([get("list", {}, frame.left), get("moments", {}, frame.left)]);
	const folders = roots.entries.filter((i) => i.state !== "deleted");
	const asked = query.get("path");
	if (asked && !folders.some((f) => f.ref === asked)) {
		const l = await get("versions", { path: asked }, frame.left);
		folders.unshift(l);
	}
	if (!folders.length || !v.times.length) return [h("h1", t("page.timeline")), h("section.card", h("p", t("timeline.none")))];
	const select = h("select", { onchange: () => look() }, folders.map((f) => h("option", { value: f.ref, selected: f.ref === asked }, f.path)));
	const last = v.times.length - 1;
	const slider = h("input", { type: "range", min: 0, max: last, value: last, step: 1, oninput: () => at(v.times[slider.value]), onchange: () => look() });
	const exact = h("input", { type: "datetime-local", step: 1, onchange: () => {
		if (!exact.value) return;
		time = new Date(exact.value).toISOString();
		const n = v.times.findLastIndex((x) => Date.parse(x) <= Date.parse(time) + 999);
		slider.value = Math.max(0, n);
		said();
		look();
	} });
	const shownTime = h("p.when.num"), rel = h("p.soft"), box = h("div.choices"), acts = h("div.row");
	let time = v.times[last], stop = new AbortController();
	const said = () => {
		shownTime.textContent = moment(time);
		rel.textContent = age(time);
		slider.setAttribute("aria-valuetext", moment(time));
	};
	const at = (x) => {
		time = x;
		exact.value = local(x);
		said();
	};
	const step = (n) => button(n < 0 ? t("timeline.earlier") : t("timeline.later"), () => {
		slider.value = Math.min(last, Math.max(0, Number(slider.value) + n));
		at(v.times[slider.value]);
		look();
	});
	async function look() {
		stop.abort();
		stop = new AbortController();
		const signal = AbortSignal.any([stop.signal, frame.left]);
		const folder = folders.find((f) => f.ref === select.value);
		fill(box, h("p.soft", t("timeline.comparing")));
		fill(acts);
		try {
			const c = await get("compare", { path: folder.ref, at: time }, signal);
			drawn(folder, c);
		} catch (err) {
			if (!signal.aborted) fill(box, failure(err));
		}
	}
	function drawn(folder, c) {
		if (!c.there) {
			fill(box, h("p", t("timeline.notthere")));
			return;
		}
		const same = c.added_count + c.removed_count + c.changed_count === 0;
		announce(same ? t("timeline.same") : t("timeline.differs", { added: c.added_count, changed: c.changed_count, removed: c.removed_count }));
		fill(box, same ? h("p", t("timeline.same")) : [
			list("timeline.changed", c.changed_count, c.changed, (d) => `${bytes(d.before)} → ${bytes(d.after)}`),
			list("timeline.removed", c.removed_count, c.removed, (d) => d.folder ? t("files.folder") : bytes(d.before)),
			list("timeline.added", c.added_count, c.added, (d) => d.folder ? t("files.folder") : bytes(d.after)),
		]);
		fill(acts, button(t("timeline.restore"), () => restore([folder], time, { rewind: true }), { kind: "main", disabled: same }));
	}
	const list = (key, count, some, size) => count > 0 && h("details", { open: count <= 20 }, h("summary", t(key, { n: count })), h("ul.list.small", some.map((d) => h("li", h("div.line", h("span.path", d.name), h("span.soft.num", size(d)))))),
		count > some.length && h("p.soft.small", t("files.more", { n: count - some.length })));
	at(time);
	look();
	return [h("h1", t("page.timeline")), h("p.lead", t("timeline.lead")),
		h("section.card", field(t("timeline.folder"), select), h("div", shownTime, rel), field(t("timeline.slider"), slider, v.earlier ? t("timeline.more") : t("timeline.count", { n: v.times.length })),
			h("div.row", step(-1), step(1)), field(t("timeline.exact"), exact)),
		h("section.card", h("h2", t("timeline.since")), box, acts)];
}
