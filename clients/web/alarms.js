// What an operator should look at, in words: the limits are those of deploy/prometheus/rules.yml.

import {number, percent} from "/ui/charts.js";

export const LIMIT_PSI = 0.1, MIN_LABELLED = 100;
const CHANCE = 0.001, FAILING = 0.8;
// Collapse: so much of the combine weight is one expert's, and the gate's choices vary by half of the hour's bits or differ
// from the reference by so many. Of fewer rows than these nothing is said.
const COLLAPSED = 0.8, LOST_BITS = 0.5, MOVED_BITS = 0.1, MIN_ROWS = 100;

const right = (expert) => (expert?.labelled ? expert.accuracy * expert.labelled : 0);

// Each expert's accuracy on the rows since the load that are not in the layer's window; null where too few had labels.
export function accuracyBefore(layer, sinceLoad) {
  return layer.experts.map((expert, i) => {
    const whole = sinceLoad?.experts[i], labelled = (whole?.labelled ?? 0) - (expert.labelled ?? 0);
    return labelled >= MIN_LABELLED ? (right(whole) - right(expert)) / labelled : null;
  });
}

export function hasMoved(drift) {
  return Boolean(drift) && drift.psi > LIMIT_PSI && drift.p_value !== null && drift.p_value < CHANCE;
}

function movedMost(layer) {
  const dense = layer.top_k === layer.experts.length;
  const [most] = layer.experts.filter((e) => typeof e.reference_share === "number")
    .map((e) => ({index: e.index, now: dense ? e.weight_share : e.share, reference: e.reference_share}))
    .sort((a, b) => Math.abs(b.now - b.reference) - Math.abs(a.now - a.reference));
  return most ? ` Most of all expert ${most.index}: ${percent(most.now)} in place of ${percent(most.reference)}.` : "";
}

// Whom an administrator has taken out of service.
const quarantined = (layer) => (layer.quarantine ?? []).map(({expert}) => expert);

// Does one expert nearly all the work, unlike in the hour, or in the checkpoint's reference?
function collapsed(layer, hourBits) {
  const drift = layer.drift?.reference;
  const moved = drift && drift.js_bits > MOVED_BITS && drift.p_value !== null && drift.p_value < CHANCE;
  const serving = layer.experts.length - quarantined(layer).length; // the last one does all the work
  if (layer.rows < MIN_ROWS || serving < 2 || !(moved || layer.usage_entropy_bits < LOST_BITS * hourBits)) return undefined;
  return layer.experts.find((e) => e.weight_share > COLLAPSED);
}

// [{kind, expert (not of drift), text}] of one layer, whose usage had hourBits of entropy in the last hour. Who is in quarantine
// is not among the dying.
export function alarmsOf(layer, before, hourBits) {
  const found = [], drift = layer.drift?.reference, one = collapsed(layer, hourBits);
  if (one)
    found.push({kind: "collapse", expert: one.index, text: `Expert ${one.index} has ${percent(one.weight_share)} of the combine weight: it does nearly all the work.`});
  if (hasMoved(drift))
    found.push({kind: "drift", text: `Rows are routed otherwise than in the checkpoint's reference: PSI ${number(drift.psi)}, beyond chance.${movedMost(layer)}`});
  for (const expert of layer.dying ?? [])
    found.push({kind: "dying", expert, text: `Expert ${expert} was used in the last hour and, beyond chance, not in the last five minutes.`});
  layer.experts.forEach((e, i) => {
    if (before[i] !== null && e.labelled >= MIN_LABELLED && e.accuracy < FAILING * before[i])
      found.push({kind: "failing", expert: e.index, text: `Expert ${e.index} is right for ${percent(e.accuracy)} of ${e.labelled.toLocaleString("en")} labelled rows; ` +
        `before this window it was right for ${percent(before[i])}.`});
  });
  return found;
}

// What was looked for and not found, or could not be.
export function quiet(layer, before) {
  if (!layer.rows) return "No rows in this window.";
  const drift = layer.drift?.reference;
  const moved = !drift ? "There is no reference to compare the routing with."
    : drift.p_value === null ? "There are too few rows to compare the routing with the checkpoint's reference."
      : "Rows are routed as in the checkpoint's reference.";
  const compared = layer.experts.some((e, i) => before[i] !== null && e.labelled >= MIN_LABELLED);
  const failing = compared ? "None is failing." : layer.experts.some((e) => e.labelled)
    ? "There are too few labels, in this window or before it, to say whether one is failing."
    : "Without labels nobody knows whether one is failing.";
  const out = quarantined(layer);
  return `${moved} No expert is dying. ${failing}${out.length ? ` In quarantine: ${out.join(", ")}.` : ""}`;
}

// {layer: "drift" or "dying"} of the other layers, from /metrics, which has no window `all`.
export function otherLayers(families, model, version, window, shown) {
  const span = window === "all" ? "1h" : window, found = new Map();
  const value = (name, layer) => families[name]?.find(({labels}) => labels.model === model && labels.version === version &&
    labels.layer === layer && labels.window === span)?.value;
  for (const {labels, value: psi} of families.moed_layer_drift_psi ?? [])
    if (labels.model === model && labels.version === version && labels.window === span &&
        hasMoved({psi, p_value: value("moed_layer_drift_p_value", labels.layer) ?? null}))
      found.set(labels.layer, "drift");
  for (const {labels, value: dying} of families.moed_layer_dying_experts ?? [])
    if (labels.model === model && labels.version === version && dying > 0) found.set(labels.layer, "dying");
  found.delete(shown);
  return found;
}
