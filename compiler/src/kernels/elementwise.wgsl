// y[t, c] = value(...) of the same element of a (and b, or b's only row), or of two adjacent elements of a wider a.
//
// One lane for each element, which reads its operands before it writes, so y may be a.
//
// Grid: x is columns, y is rows.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let column = id.x;
    let t = id.y;
    if (column >= COLUMNS || t >= rows()) { return; }
    let index = t * COLUMNS + column;
    y[index] = value(index, column);
}
