// y[t, n] = epilogue(Σ_k w[n, k] x[t, k]) for many rows x: prefill and the vision tower, bound by arithmetic.
//
// A workgroup computes TILE_ROWS rows of y by 4 LANES columns. Each lane owns four adjacent rows of w: it loads their
// packed words itself and decodes them in registers (each decoded value is used TILE_ROWS times, and the words are few
// enough for the cache), so w takes no workgroup memory. A tile of x lies there, normalised; all lanes read the same
// vec4 of it at the same time, which is a broadcast. For each vec4 read, a lane does 16 multiply-adds. RMS norm is linear in
// 1 / rms(x), so squares are summed while tiles are loaded and the sums are scaled at the end.
//
// Grid: x is tiles of rows of x, so workgroups that run together share rows of w; y is tiles of rows of w.

const TILE_VECTORS: u32 = TILE_BLOCKS * BLOCK_VECTORS;
// Lanes that load a row of the tile.
const ROW_LANES: u32 = LANES / TILE_ROWS;

var<workgroup> tile: array<vec4<f32>, TILE_ROWS * TILE_VECTORS>;
var<workgroup> row_squares: array<f32, LANES>;

// Row t of y, columns of this lane.
var<private> sum0: vec4<f32>;
var<private> sum1: vec4<f32>;
var<private> sum2: vec4<f32>;
var<private> sum3: vec4<f32>;
var<private> sum4: vec4<f32>;
var<private> sum5: vec4<f32>;
var<private> sum6: vec4<f32>;
var<private> sum7: vec4<f32>;
var<private> sum8: vec4<f32>;
var<private> sum9: vec4<f32>;
var<private> sum10: vec4<f32>;
var<private> sum11: vec4<f32>;
var<private> sum12: vec4<f32>;
var<private> sum13: vec4<f32>;
var<private> sum14: vec4<f32>;
var<private> sum15: vec4<f32>;

// Four columns of w's four rows (the columns of `w`) times the same columns of all rows of the tile.
fn step(w: mat4x4<f32>, column: u32) {
    sum0 += tile[column] * w;
    sum1 += tile[column + TILE_VECTORS] * w;
    sum2 += tile[column + 2u * TILE_VECTORS] * w;
    sum3 += tile[column + 3u * TILE_VECTORS] * w;
    sum4 += tile[column + 4u * TILE_VECTORS] * w;
    sum5 += tile[column + 5u * TILE_VECTORS] * w;
    sum6 += tile[column + 6u * TILE_VECTORS] * w;
    sum7 += tile[column + 7u * TILE_VECTORS] * w;
    sum8 += tile[column + 8u * TILE_VECTORS] * w;
    sum9 += tile[column + 9u * TILE_VECTORS] * w;
    sum10 += tile[column + 10u * TILE_VECTORS] * w;
    sum11 += tile[column + 11u * TILE_VECTORS] * w;
    sum12 += tile[column + 12u * TILE_VECTORS] * w;
    sum13 += tile[column + 13u * TILE_VECTORS] * w;
    sum14 += tile[column + 14u * TILE_VECTORS] * w;
    sum15 += tile[column + 15u * TILE_VECTORS] * w;
}

// 1 / rms of a row of the tile, once `row_squares` is complete; 1 without norm.
fn row_factor(row: u32) -> f32 {
    if (!NORM) { return 1.0; }
    var squares = 0.0;
    for (var i = 0u; i < ROW_LANES; i++) { squares += row_squares[row * ROW_LANES + i]; }
    return inverseSqrt(squares / f32(K) + EPS);
}

fn output_row(first: u32, t: u32, row: u32, sums: vec4<f32>) {
    if (first + t < rows()) { output4(first + t, row, sums * row_factor(t)); }
}

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let first = workgroup.x * TILE_ROWS;
    let row = (workgroup.y * LANES + lane) * 4u;
    let tile_row = lane / ROW_LANES;
    let x_row = min(first + tile_row, rows() - 1u);
    var squares = 0.0;
    for (var block = 0u; block < ROW_BLOCKS; block += TILE_BLOCKS) {
        workgroupBarrier();
        for (var i = lane % ROW_LANES; i < TILE_VECTORS; i += ROW_LANES) {
            let column = (block + i / BLOCK_VECTORS) * BLOCK + i % BLOCK_VECTORS * 4u;
            let four = x4(x_row, column);
            squares += dot(four, four);
            tile[tile_row * TILE_VECTORS + i] = four * norm_or_one(column);
        }
        workgroupBarrier();
        let blocks = min(TILE_BLOCKS, ROW_BLOCKS - block);
        for (var i = 0u; i < blocks; i++) { multiply_block(row, block + i, i * BLOCK_VECTORS); }
    }
    row_squares[lane] = squares;
    workgroupBarrier();
    output_row(first, 0u, row, sum0);
    output_row(first, 1u, row, sum1);
    output_row(first, 2u, row, sum2);
    output_row(first, 3u, row, sum3);
    output_row(first, 4u, row, sum4);
    output_row(first, 5u, row, sum5);
    output_row(first, 6u, row, sum6);
    output_row(first, 7u, row, sum7);
    output_row(first, 8u, row, sum8);
    output_row(first, 9u, row, sum9);
    output_row(first, 10u, row, sum10);
    output_row(first, 11u, row, sum11);
    output_row(first, 12u, row, sum12);
    output_row(first, 13u, row, sum13);
    output_row(first, 14u, row, sum14);
    output_row(first, 15u, row, sum15);
}
