// y[t, h] = Σ_s e[s] sum[s] / Σ_s e[s] total[s], e[s] = exp(m[s] - max m), over the splits s of the sequence so far, whose
// sum, total and m attention_split.wgsl left in partial[t, h, s] (a row of HEAD_DIM + 2 numbers).
//
// One lane for each element; all lanes of a workgroup read the same totals and maxima.
//
// Grid: x is columns of a head, y is heads, z is rows.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let column = id.x;
    let head = id.y;
    let t = id.z;
    if (column >= HEAD_DIM || t >= rows()) { return; }
    let first = (t * HEADS + head) * SPLITS;
    let splits = min((call.position + rows() + SPLIT - 1u) / SPLIT, SPLITS);
    var top = -3.0e38;
    for (var s = 0u; s < splits; s++) { top = max(top, partial[(first + s) * (HEAD_DIM + 2u) + HEAD_DIM + 1u]); }
    var sum = 0.0;
    var total = 0.0;
    for (var s = 0u; s < splits; s++) {
        let start = (first + s) * (HEAD_DIM + 2u);
        let e = exp(partial[start + HEAD_DIM + 1u] - top);
        sum += e * partial[start + column];
        total += e * partial[start + HEAD_DIM];
    }
    y[(t * HEADS + head) * HEAD_DIM + column] = sum / max(total, 1.0e-30);
}
