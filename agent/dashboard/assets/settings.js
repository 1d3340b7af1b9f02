// Pause, limits, machines, the recovery kit, and what helps who helps.

import { t, has, h, fill, get, post, button, field, failure, confirm, copy, announce, age, moment } from "./lib.js";

export async function show(frame) {
	const pause = h("div"), devices = h("div"), pairing = h("div"), kit = h("p"), text = h("pre", { tabindex: 0, "aria-label": t("diagnostics.title") });
	let drawn;
	frame.onState((s) => {
		const now = JSON.stringify([s.agent, s.state === "paused", s.status?.paused_until, s.kit_pending]);
		if (now === drawn) return;
		drawn = now;
		const paused = s.state === "paused" || s.status?.paused_until;
		fill(pause, s.agent !== "running" ? h("p.soft", t("settings.noagent")) : h("div.row.between",
			h("p", paused ? s.status.paused_until ? t("settings.paused.until", { time: moment(s.status.paused_until) }) : t("settings.paused") : t("settings.running")),
			paused ? button(t("resume"), () => post("resume"), { kind: "main" }) : h("div.row",
				button(t("pause.hour"), () => post("pause", { until: new Date(Date.now() + 3600e3).toISOString() })),
				button(t("pause.resumed"), () => post("pause", { until: "0001-01-01T00:00:00Z" })))));
		fill(kit, s.kit_pending ? [t("kit.notice.title"), " ", h("a", { href: "/kit" }, t("kit.notice.go"))] : t("kit.away"));
	});

	const limits = h("div.choices");
	const loadLimits = async () => {
		const v = await get("settings");
		fill(limits, v.settings.map((s) => {
			const input = h("input", { type: "text", value: s.value, placeholder: s.default, autocomplete: "off", spellcheck: "false" }), bad = h("div");
			return h("form.choices", { onsubmit: async (e) => {
				e.preventDefault();
				try {
					await post("settings", { key: s.key, value: input.value === s.default ? "" : input.value });
					fill(bad);
					announce(t("settings.saved"));
				} catch (err) {
					fill(bad, failure(err));
				}
			} }, h("div.row", field(has(`setting.${s.key}`) ? t(`setting.${s.key}`) : s.key, input, t("settings.default", { value: s.default || "–" })), h("button", { type: "submit", "aria-label": t("settings.save.of", { name: s.key }) }, t("save"))), bad);
		}), h("p.small.soft", t("settings.file"), " ", h("span.path", v.file)));
		for (const f of limits.querySelectorAll(".field")) f.style.flex = "1 1 16rem";
	};
	const loadDevices = async () => {
		const list = await get("devices", {}, frame.left);
		fill(devices, h("ul.list", list.map((d) => h("li", h("div.row.between",
			h("div", h("strong", d.name), " ", d.this && h("span.tag.good", t("devices.this")), " ", d.state !== "member" && h(`span.tag.${d.state === "revoked" ? "bad" : "warn"}`, t(`devices.${d.state}`)),
				h("p.soft.small", d.last_safe ? t("devices.safe", { age: age(d.last_safe) }) : t("devices.never"))),
			d.state === "member" && !d.this && button(t("devices.revoke"), async () => {
				if (!await confirm(t("devices.revoke.title", { name: d.name }), t("devices.revoke.text"), t("devices.revoke.yes"), true)) return;
				await post("devices/revoke", { id: d.id });
				announce(t("devices.revoked.told"));
				await loadDevices();
			}, { kind: "danger", label: t("devices.revoke.label", { name: d.name }) }))))));
	};
	const drawPairing = (p) => fill(pairing,
		p.state === "waiting" ? [h("p", t("pairing.text")), h("p.big", { "aria-label": p.code.split("").join(" ") }, p.code), h("div.row", h("p.soft", t("pairing.waiting")), button(t("cancel"), async () => { await post("pairing/end"); drawPairing({ state: "" }); }))]
			: [p.state === "done" && h("p", t("pairing.done", { name: p.member })), p.state === "failed" && h("p.error", p.error),
				h("div.row", button(t("pairing.begin"), async () => {
					drawPairing(await post("pairing/begin", { anew: true }));
					poll();
				}))]);
	async function poll() {
		for (let p; !frame.left.aborted;) {
			await new Promise((r) => setTimeout(r, 1000));
			p = await post("pairing/begin", {});
			if (p.state === "waiting") continue;
			drawPairing(p);
			if (p.state === "done") {
				announce(t("pairing.done", { name: p.member }));
				loadDevices();
			}
			return;
		}
	}
	const late = (box, load) => load().catch((err) => { if (!frame.left.aborted) fill(box, failure(err)); });
	late(limits, loadLimits);
	late(devices, loadDevices);
	drawPairing({ state: "" });
	const diagnose = async () => {
		text.textContent = t("loading");
		text.textContent = (await get("diagnostics")).text;
	};
	text.hidden = true;
	return [h("h1", t("page.settings")),
		h("section.card", h("h2", t("settings.pause")), pause),
		h("section.card", h("h2", t("devices.title")), devices, h("h3", t("pairing.title")), h("p.soft", t("pairing.lead")), pairing),
		h("section.card", h("h2", t("page.kit")), kit),
		h("section.card", h("h2", t("settings.limits")), limits),
		h("section.card", h("h2", t("diagnostics.title")), h("p.soft", t("diagnostics.lead")), text, h("div.row",
			button(t("diagnostics.show"), async () => { text.hidden = false; await diagnose(); }),
			button(t("diagnostics.copy"), async () => { if (text.hidden || !text.textContent) { text.hidden = false; await diagnose(); } await copy(text.textContent); })))];
}
