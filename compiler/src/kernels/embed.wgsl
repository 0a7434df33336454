// y[t, c] = SCALE * table[tokens[t], c] for tokens in FIRST_ROW .. FIRST_ROW + N; other rows of y are left alone.
//
// One lane for each element: neighbouring lanes read the same words, which the cache serves; only `rows` rows are read.
//
// Grid: x is columns, y is rows.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let column = id.x;
    let t = id.y;
    if (column >= COLUMNS || t >= rows()) { return; }
    // Wraps around for tokens before this part.
    let row = tokens[t] - FIRST_ROW;
    if (row >= N) { return; }
    y[t * COLUMNS + column] = SCALE * weight(row, column);
}
