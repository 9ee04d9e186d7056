// A comparison as plain data: what both answers are so far. Chunks of the streams change it; views, exports and the
// history only read it.

/** Seconds that a decision without a call may take. */
const AT_ONCE = 0.1;
/** Stages of one call each. */
const CALLED = ["skeleton", "opening", "closing", "merge", "direct"];

/** A new comparison of a question. `model` is one of `models()`. */
export function newComparison({ question, model, order, options }) {
  return {
    question,
    model: { id: model.id, name: model.name, local: model.local, remark: model.remark ?? null },
    order,
    options,
    asked: new Date().toISOString(),
    normal: newSide("normal"),
    sot: newSide("sot"),
  };
}

function newSide(kind) {
  return {
    kind,
    // idle, queued (the other answer goes first), open, done, failed, stopped
    status: "idle",
    text: "",
    reasoning: false,
    first: null, // seconds to its first text
    seconds: null, // seconds to its end
    usage: null, // {input, output}
    calls: null,
    finish: null,
    error: null,
    // Skeleton-of-Thought only:
    route: null,
    reason: "",
    score: null,
    points: [],
    stages: {}, // route, skeleton, opening, closing, merge, direct: {start, first, end, failed}; an end that is null is still to come
    opening: "",
    closing: "",
    merged: false,
    mergeError: null,
  };
}

/** Takes in a chunk of either answer, `now` seconds after its request. */
export function takeChunk(side, { chunk, route, reason }, now) {
  if (side.kind === "sot") takeRoute(side, route, reason);
  const choice = chunk.choices?.[0];
  const delta = choice?.delta ?? {};
  if (delta.reasoning_content || delta.reasoning) side.reasoning = true;
  if (typeof delta.content === "string" && delta.content) {
    side.text += delta.content;
    side.first ??= now;
  }
  if (choice?.finish_reason) side.finish = choice.finish_reason;
  // Zeros stand for a model that reports no tokens.
  if (chunk.usage?.completion_tokens || chunk.usage?.prompt_tokens) {
    side.usage = { input: chunk.usage.prompt_tokens ?? null, output: chunk.usage.completion_tokens ?? null };
  }
  // Only our own server tells what happens; what passes through may have any field.
  if (chunk.sot && side.kind === "sot") takeEvent(side, chunk.sot, now);
}

/** Ends an answer, however it ended. */
export function endSide(side, status, now, error = null) {
  side.status = status;
  side.seconds = now;
  side.error = error;
  for (const point of side.points) {
    if (["waiting", "writing", "again"].includes(point.state)) point.state = "stopped";
    if (point.end === null && point.start !== null) point.end = now;
  }
  for (const span of Object.values(side.stages)) {
    if (span.end === null) Object.assign(span, { end: now, failed: status === "failed" });
  }
  if (side.kind === "normal" || side.route === "direct") side.calls ??= 1;
}

/** The points that a point still waits for. */
export function waitsFor(side, point) {
  const ended = (index) => side.points.some((one) => one.index === index && ["done", "failed"].includes(one.state));
  return point.state === "waiting" ? (point.after ?? []).filter((index) => !ended(index)) : [];
}

/** How many points of an answer are in a state. */
export function countPoints(side, ...states) {
  return side.points.filter((point) => states.includes(point.state)).length;
}

// A request that passes through tells its route in a header only.
function takeRoute(side, route, reason) {
  if (side.route !== null || !["direct", "passed"].includes(route)) return;
  side.route = "direct";
  side.reason = reason ?? "";
}

function routeOf(decision) {
  if (decision.items) return "items";
  return decision.use_skeleton ? "skeleton" : "direct";
}

function newPoint({ index, title, scope, depends_on }) {
  // waiting, writing, again (its call failed and is made again, or it is written anew), done, failed, stopped
  return { index, title, scope: scope ?? "", after: depends_on ?? [], state: "waiting", text: "", attempts: 0, start: null, first: null, end: null, released: null, finish: null, error: null };
}

function pointOf(side, plan) {
  let point = side.points.find((one) => one.index === plan.index);
  if (!point) {
    point = newPoint(plan);
    side.points.push(point);
    side.points.sort((one, other) => one.index - other.index);
  }
  return point;
}

function takeEvent(side, event, now) {
  const at = event.at ?? now;
  if (Object.hasOwn(EVENTS, event.event)) EVENTS[event.event](side, event, at);
}

const EVENTS = {
  Routed(side, { decision }, at) {
    side.route = routeOf(decision);
    side.reason = decision.reason ?? "";
    side.score = decision.score ?? null;
    // A router that decides at once makes no call.
    if (at > AT_ONCE) side.stages.route = { start: 0, first: null, end: at };
    // Items need no skeleton: their calls begin at once.
    if (side.route !== "items") side.stages[side.route] ??= { start: at, first: null, end: null };
  },
  PointFound(side, { point }, at) {
    side.route = "skeleton";
    side.stages.skeleton ??= { start: 0, first: null, end: null };
    side.stages.skeleton.first ??= at;
    pointOf(side, point);
  },
  SkeletonDone(side, { plan }, at) {
    if (side.route === "items") return;
    side.stages.skeleton ??= { start: 0, first: null, end: null };
    side.stages.skeleton.end = at;
    for (const point of plan ?? []) pointOf(side, point);
  },
  SkeletonRestarted(side) {
    side.points = [];
    side.stages.skeleton = { ...side.stages.skeleton, first: null, end: null };
  },
  PointStarted(side, { point, attempt }, at) {
    const one = pointOf(side, point);
    Object.assign(one, { state: attempt > 1 ? "again" : "writing", attempts: attempt, start: at, first: null, end: null });
  },
  PointDelta(side, { point, text }, at) {
    const one = pointOf(side, point);
    one.text += text;
    one.first ??= at;
    one.state = "writing";
  },
  PointRestarted(side, { point, error }) {
    Object.assign(pointOf(side, point), { state: "again", text: "", error: error?.message ?? null });
  },
  PointDone(side, { expansion }, at) {
    const one = pointOf(side, expansion);
    takeExpansion(one, expansion);
    one.end = at;
  },
  RoleStarted(side, { role }, at) {
    side.stages[role] = { start: at, first: null, end: null };
  },
  RoleDone(side, { role, text, error }, at) {
    side.stages[role] = { ...side.stages[role], end: at, failed: Boolean(error) };
    side[role] = error ? "" : text;
  },
  MergeStarted(side, event, at) {
    side.stages.merge = { start: at, first: null, end: null };
  },
  MergeDone(side, { error }, at) {
    side.stages.merge = { ...side.stages.merge, end: at };
    side.merged = !error;
    side.mergeError = error?.message ?? null;
  },
  AnswerDelta(side, event, at) {
    // The text itself is the content of the same chunk.
    const span = side.stages.merge ?? side.stages.direct;
    if (span) span.first ??= at;
    if (!side.points.length && !span) side.stages.direct = { start: 0, first: at, end: null };
  },
  AnswerRestarted(side) {
    side.text = "";
  },
  AnswerDone(side, { answer }, at) {
    takeAnswer(side, answer, at);
  },
  AnswerFailed(side, { answer }, at) {
    if (answer) takeAnswer(side, answer, at);
  },
};

function takeExpansion(point, expansion) {
  point.state = expansion.error ? "failed" : "done";
  point.text = expansion.text;
  point.error = expansion.error?.message ?? null;
  point.attempts = expansion.attempts;
  point.finish = expansion.finish_reason ?? null;
}

function takeAnswer(side, answer, at) {
  const { timings, usage } = answer;
  side.text = answer.text;
  side.route = answer.route;
  side.reason = answer.reason || side.reason;
  side.score = answer.decision?.score ?? side.score;
  side.finish = answer.finish_reason ?? side.finish;
  side.merged = answer.merged;
  side.mergeError = answer.merge_error?.message ?? null;
  if (usage?.total_tokens) side.usage = { input: usage.input_tokens, output: usage.output_tokens };
  // The answer's own clock begins when the server takes it up; ours when the request came in.
  const shift = Math.max(0, at - timings.total);
  side.stages = {};
  for (const [stage, span] of Object.entries(timings.stages)) {
    if (stage !== "point") side.stages[stage] = { ...shifted(span, shift), failed: Boolean(answer.role_errors?.[stage]) };
  }
  side.opening = answer.opening ?? "";
  side.closing = answer.closing ?? "";
  // A server of an older version has no plan.
  for (const point of answer.plan ?? answer.skeleton.map((title, place) => ({ index: place + 1, title }))) pointOf(side, point);
  side.points = side.points.filter((point) => point.index <= answer.skeleton.length);
  for (const expansion of answer.expansions) takeExpansion(pointOf(side, expansion), expansion);
  for (const times of timings.points) {
    const point = pointOf(side, times);
    if (times.written) Object.assign(point, shifted(times.written, shift));
    point.released = times.released === null ? null : times.released + shift;
  }
  side.calls = Object.keys(side.stages).filter((stage) => CALLED.includes(stage)).length;
  side.calls += answer.expansions.reduce((sum, { attempts }) => sum + attempts, 0) + (answer.decision?.usage ? 1 : 0);
}

function shifted({ start, first, end }, by) {
  return { start: start + by, first: first === null || first === undefined ? null : first + by, end: end + by };
}
