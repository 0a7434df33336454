// y[t, h, i] and y[t, h, i + HALF]: the pair of x rotated by (position + t) * inverse_frequencies[i], times MAGNITUDE.
//
// One lane for each pair: it reads both elements before it writes them, so y may be x.
//
// Grid: x is the pairs of a row (head by head), y is rows.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let t = id.y;
    if (id.x >= HEADS * HALF || t >= rows()) { return; }
    let pair = id.x % HALF;
    let first = (t * HEADS + id.x / HALF) * 2u * HALF + pair;
    let angle = angle_of(call.position + t, inverse_frequencies[pair]);
    let c = cos(angle) * MAGNITUDE;
    let s = sin(angle) * MAGNITUDE;
    let a = x[first];
    let b = x[first + HALF];
    y[first] = a * c - b * s;
    y[first + HALF] = b * c + a * s;
}
