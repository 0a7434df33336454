// y[window, (channel, dy, dx)] = pixels[channel, top + dy, left + dx]: a convolution's windows as rows.
//
// One lane for each element; runs of PATCH elements are adjacent in both arrays.
//
// Grid: x is the elements of a window, y is windows, row by row.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let element = id.x;
    let window = id.y;
    if (element >= CHANNELS * PATCH * PATCH || window >= rows()) { return; }
    let channel = element / (PATCH * PATCH);
    let row = window / ACROSS * PATCH + element / PATCH % PATCH;
    let column = window % ACROSS * PATCH + element % PATCH;
    y[window * CHANNELS * PATCH * PATCH + element] = pixels[(channel * HEIGHT + row) * WIDTH + column];
}
