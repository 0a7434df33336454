// y[t] = x[t] where index[t].x < 0, else Σ_j weight[t][j] * image_rows[index[t][j]] over the j whose index is not negative.
//
// One lane for each element, which it reads before it writes it, so y may be x. Indices come from outside: they are
// held within the state.
//
// Grid: x is columns, y is rows.

fn term(index: i32, weight: f32, column: u32) -> f32 {
    if (index < 0) { return 0.0; }
    return weight * image_rows[min(u32(index), IMAGE_ROWS - 1u) * COLUMNS + column];
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let column = id.x;
    let t = id.y;
    if (column >= COLUMNS || t >= rows()) { return; }
    let at = t * COLUMNS + column;
    let i = index[t];
    let w = weight[t];
    if (i.x < 0) {
        y[at] = x[at];
    } else {
        y[at] = term(i.x, w.x, column) + term(i.y, w.y, column) + term(i.z, w.z, column) + term(i.w, w.w, column);
    }
}
