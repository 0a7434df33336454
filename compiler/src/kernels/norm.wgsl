// y[t] = x[t] / sqrt(mean(x[t]²) + EPS) * weight (+ residual[t]), or with LAYER
// y[t] = (x[t] - mean(x[t])) / sqrt(var(x[t]) + EPS) * weight + bias (+ residual[t]).
//
// A workgroup normalises one row, or one of its HEADS parts of COLUMNS columns. The variance is summed in a second pass over the columns, because the mean of squares
// minus the square of the mean cancels. Each lane reads and writes the same columns in all passes, so y may be x.
//
// Grid: x is rows, y heads.

var<workgroup> partial: array<f32, LANES>;

// The sum of `value` over the lanes, for every lane.
fn sum_lanes(lane: u32, value: f32) -> f32 {
    workgroupBarrier();
    partial[lane] = value;
    workgroupBarrier();
    if (lane < 8u) {
        var sum = 0.0;
        for (var i = lane; i < LANES; i += 8u) { sum += partial[i]; }
        partial[lane] = sum;
    }
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < 8u; i++) { sum += partial[i]; }
    return sum;
}

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let start = (workgroup.x * HEADS + workgroup.y) * COLUMNS;
    var mean = 0.0;
    if (LAYER) {
        var sum = 0.0;
        for (var column = lane; column < COLUMNS; column += LANES) { sum += x[start + column]; }
        mean = sum_lanes(lane, sum) / f32(COLUMNS);
    }
    var squares = 0.0;
    for (var column = lane; column < COLUMNS; column += LANES) {
        let centred = x[start + column] - mean;
        squares += centred * centred;
    }
    let factor = inverseSqrt(sum_lanes(lane, squares) / f32(COLUMNS) + EPS);
    for (var column = lane; column < COLUMNS; column += LANES) {
        let index = start + column;
        y[index] = shifted(column, index, (x[index] - mean) * factor * weight[column]);
    }
}
