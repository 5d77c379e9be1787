// Graphs that are more than sums of trees: run by ONNX Runtime, which lies beside the page.

import * as ort from "./ort/ort.wasm.min.mjs";

ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more would need headers that not every host sends
ort.env.logLevel = "error";

/** Make what runs a graph over rows: for each row, the outputs of each target by what they are. */
export async function runner(url, program, encode) {
  const graph = new Uint8Array(await (await fetch(url)).arrayBuffer());
  return runnerOf(graph, program, encode);
}

export async function runnerOf(graph, program, encode) {
  const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"], graphOptimizationLevel: "basic" });
  const names = program.outputs.flatMap((group) => Object.values(group));
  let turn = Promise.resolve(); // a session runs one question at a time
  return (rows) => {
    const found = turn.then(() => run(session, names, program, encode, rows));
    turn = found.catch(() => undefined);
    return found;
  };
}

async function run(session, names, program, encode, rows) {
  const x = new ort.Tensor("float64", encode(rows), [rows.length, encode.width]);
  const found = await session.run({ x }, names);
  const spread = (tensor, row) => {
    const width = tensor.data.length / rows.length;
    return Array.from(tensor.data.slice(row * width, (row + 1) * width), Number);
  };
  const of = (group, row) => Object.fromEntries(Object.entries(group).map(([kind, name]) => [kind, spread(found[name], row)]));
  return { rows: rows.map((_, row) => program.outputs.map((group) => of(group, row))) };
}
