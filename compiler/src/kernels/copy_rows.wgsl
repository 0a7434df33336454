// y[t, c] = x[t * STRIDE + OFFSET + c], or with LAST y[0, c] = x[(rows - 1) * STRIDE + OFFSET + c].
//
// One lane for each element.
//
// Grid: x is columns, y is rows of y.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let column = id.x;
    let t = id.y;
    if (column >= COLUMNS || t >= rows()) { return; }
    let source = select(t, rows() - 1u, LAST);
    y[t * COLUMNS + column] = x[source * STRIDE + OFFSET + column];
}
