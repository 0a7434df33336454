//! Texts of the functions that decode codes in two places.

use expect_test::expect;

use super::*;

/// The functions that decode, of a kernel's prelude.
#[track_caller]
fn check_decoding(text: &str, rows: Dim, k: usize, from: &str, expected: expect_test::Expect) {
    let spec = KernelSpec::MatMul(matmul(format(text), rows, 64, k));
    let emitted: Emitted = emit(&spec, &Target::new(TargetName::Vulkan)).unwrap();
    let from = emitted.wgsl.find(from).unwrap();
    let end = emitted.wgsl[from..].find("\nfn output").unwrap();
    expected.assert_eq(&emitted.wgsl[from..from + end]);
}

#[test]
fn codes_in_two_places() {
    let row = Dim::Fixed(1);
    check_decoding(
        "q5g32f16m",
        row,
        64,
        "fn spread",
        expect![[r#"
        fn spread(low: u32, high: u32) -> vec2<u32> {
            let upper = ((vec2<u32>(high, high >> 1u) & vec2<u32>(0x55u)) * 0x410410u) & vec2<u32>(0x10101010u);
            return (vec2<u32>(low, low >> 4u) & vec2<u32>(0xf0f0f0fu)) | upper;
        }
        fn values0(code: vec2<u32>) -> vec4<f32> { return vec4<f32>(vec4<i32>(vec4<u32>(code.x, code.y, code.x, code.y) & vec4<u32>(0x1fu, 0x1fu, 0x1f00u, 0x1f00u))); }
        fn values1(code: vec2<u32>) -> vec4<f32> { return vec4<f32>(vec4<i32>(vec4<u32>(code.x, code.y, code.x, code.y) & vec4<u32>(0x1f0000u, 0x1f0000u, 0x1f000000u, 0x1f000000u))); }
        fn dot_block(row: u32, block: u32, x: XBlock) -> f32 {
            let at = (row * ROW_BLOCKS + block) * 5u;
            let load0 = weights[at + 0u];
            let load1 = weights[at + 1u];
            let load2 = weights[at + 2u];
            let load3 = weights[at + 3u];
            let load4 = weights[at + 4u];
            let code0 = spread(load0, load4 >> 0u);
            let code1 = spread(load1, load4 >> 8u);
            let code2 = spread(load2, load4 >> 16u);
            let code3 = spread(load3, load4 >> 24u);
            let sum = dot(values0(code0), x.v0)
                + dot(values1(code0), x.v1)
                + dot(values0(code1), x.v2)
                + dot(values1(code1), x.v3)
                + dot(values0(code2), x.v4)
                + dot(values1(code2), x.v5)
                + dot(values0(code3), x.v6)
                + dot(values1(code3), x.v7);
            let scale = scale_of(row, block);
            return scale.x * sum + scale.y * x.total;
        }"#]],
    );
    check_decoding(
        "q6g32f16",
        row,
        64,
        "fn spread",
        expect![[r#"
        fn spread(low: u32, high: u32) -> vec2<u32> {
            let fours = ((vec2<u32>(high, high >> 2u) & vec2<u32>(0x3333u)) * 0x101u) & vec2<u32>(0x330033u);
            let upper = (fours * 0x110u) & vec2<u32>(0x30303030u);
            return (vec2<u32>(low, low >> 4u) & vec2<u32>(0xf0f0f0fu)) | upper;
        }
        fn values0(code: vec2<u32>) -> vec4<f32> { return vec4<f32>(vec4<i32>(vec4<u32>(code.x, code.y, code.x, code.y) & vec4<u32>(0x3fu, 0x3fu, 0x3f00u, 0x3f00u))); }
        fn values1(code: vec2<u32>) -> vec4<f32> { return vec4<f32>(vec4<i32>(vec4<u32>(code.x, code.y, code.x, code.y) & vec4<u32>(0x3f0000u, 0x3f0000u, 0x3f000000u, 0x3f000000u))); }
        fn dot_block(row: u32, block: u32, x: XBlock) -> f32 {
            let at = (row * ROW_BLOCKS + block) * 3u;
            let load0 = weights[at + 0u];
            let load1 = weights[at + 1u];
            let load2 = weights[at + 2u];
            let code0 = spread(load0.x, load1.x >> 0u);
            let code1 = spread(load0.y, load1.x >> 16u);
            let code2 = spread(load1.y, load2.y >> 0u);
            let code3 = spread(load2.x, load2.y >> 16u);
            let sum = dot(values0(code0), x.v0)
                + dot(values1(code0), x.v1)
                + dot(values0(code1), x.v2)
                + dot(values1(code1), x.v3)
                + dot(values0(code2), x.v4)
                + dot(values1(code2), x.v5)
                + dot(values0(code3), x.v6)
                + dot(values1(code3), x.v7);
            return scale_of(row, block) * (sum - 31.0 * x.total);
        }"#]],
    );
    check_decoding(
        "q6g16f16z",
        Dim::Rows,
        64,
        "fn spread",
        expect![[r#"
        fn spread(low: u32, high: u32) -> vec2<u32> {
            let fours = ((vec2<u32>(high, high >> 2u) & vec2<u32>(0x3333u)) * 0x101u) & vec2<u32>(0x330033u);
            let upper = (fours * 0x110u) & vec2<u32>(0x30303030u);
            return (vec2<u32>(low, low >> 4u) & vec2<u32>(0xf0f0f0fu)) | upper;
        }
        fn values0(code: vec2<u32>) -> vec4<f32> { return vec4<f32>(vec4<i32>(vec4<u32>(code.x, code.y, code.x, code.y) & vec4<u32>(0x3fu, 0x3fu, 0x3f00u, 0x3f00u))); }
        fn values1(code: vec2<u32>) -> vec4<f32> { return vec4<f32>(vec4<i32>(vec4<u32>(code.x, code.y, code.x, code.y) & vec4<u32>(0x3f0000u, 0x3f0000u, 0x3f000000u, 0x3f000000u))); }
        const FACTORS0: vec4<f32> = vec4<f32>(1.0, 1.0, 0.00390625, 0.00390625);
        const FACTORS1: vec4<f32> = vec4<f32>(1.52587890625e-5, 1.52587890625e-5, 5.960464477539063e-8, 5.960464477539063e-8);
        fn multiply_block(row: u32, block: u32, column: u32) {
            let row0 = min(row + 0u, N - 1u);
            let pair0 = scale_of(row0, block);
            let scale0 = pair0.x;
            let zero0 = vec4<f32>(pair0.y * scale0);
            let row1 = min(row + 1u, N - 1u);
            let pair1 = scale_of(row1, block);
            let scale1 = pair1.x;
            let zero1 = vec4<f32>(pair1.y * scale1);
            let row2 = min(row + 2u, N - 1u);
            let pair2 = scale_of(row2, block);
            let scale2 = pair2.x;
            let zero2 = vec4<f32>(pair2.y * scale2);
            let row3 = min(row + 3u, N - 1u);
            let pair3 = scale_of(row3, block);
            let scale3 = pair3.x;
            let zero3 = vec4<f32>(pair3.y * scale3);
            for (var unit = 0u; unit < 2u; unit++) {
                let at0 = (row0 * ROW_BLOCKS + block) * 3u + unit / 2u * 3u;
                let code0 = spread(weights[at0 + unit % 2u], weights[at0 + 2u] >> (unit % 2u * 16u));
                let at1 = (row1 * ROW_BLOCKS + block) * 3u + unit / 2u * 3u;
                let code1 = spread(weights[at1 + unit % 2u], weights[at1 + 2u] >> (unit % 2u * 16u));
                let at2 = (row2 * ROW_BLOCKS + block) * 3u + unit / 2u * 3u;
                let code2 = spread(weights[at2 + unit % 2u], weights[at2 + 2u] >> (unit % 2u * 16u));
                let at3 = (row3 * ROW_BLOCKS + block) * 3u + unit / 2u * 3u;
                let code3 = spread(weights[at3 + unit % 2u], weights[at3 + 2u] >> (unit % 2u * 16u));
                step(mat4x4<f32>(
                    values0(code0) * (scale0 * FACTORS0) - zero0,
                    values0(code1) * (scale1 * FACTORS0) - zero1,
                    values0(code2) * (scale2 * FACTORS0) - zero2,
                    values0(code3) * (scale3 * FACTORS0) - zero3
                ), column + unit * 2u + 0u);
                step(mat4x4<f32>(
                    values1(code0) * (scale0 * FACTORS1) - zero0,
                    values1(code1) * (scale1 * FACTORS1) - zero1,
                    values1(code2) * (scale2 * FACTORS1) - zero2,
                    values1(code3) * (scale3 * FACTORS1) - zero3
                ), column + unit * 2u + 1u);
            }
        }
        fn norm_or_one(column: u32) -> vec4<f32> { return vec4<f32>(1.0); }"#]],
    );
}
