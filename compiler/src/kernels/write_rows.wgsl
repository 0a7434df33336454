// state[first_row() + t] = x[t], for rows that the state has; writes beyond it are dropped.
//
// One lane for UNIT adjacent elements: where the state is f16, two of them are one whole word, written by one lane.
//
// Grid: x is the units of a row, y is rows.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let column = id.x * UNIT;
    let t = id.y;
    let row = first_row() + t;
    if (column >= COLUMNS || t >= rows() || row >= STATE_ROWS) { return; }
    write(row * COLUMNS + column, t * COLUMNS + column);
}
